"""PNG from top to bottom (PNG specification, third edition): inflate some rows, let Pillow undo their filters.

A filtered row needs only the row above it. So a band of rows is a PNG of its own, whose first row is the last one of
the band before; Pillow, which reads whole pictures alone, reads that. Filters work on bytes a pixel apart and know
nothing of colour: of 16-bit samples the high bytes are filtered apart from the low ones, so these are dropped first.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError
from atrous.raster.base import Band, Raster, of_any_size, rgb, turned

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: grey, RGB, palette, grey and alpha, RGB and alpha
BYTES_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # the colour type of 8-bit pixels of so many bytes
ORIENTATION = 0x0112  # EXIF
PIECE = 2**20  # bytes read from the file at once
BAND = 2**26  # most bytes unfiltered at once


class PngRaster(Raster):
    """A PNG without interlacing."""

    above: NDArray[np.uint8]  # the last row that was unfiltered

    def __init__(self, path: Path, upright: bool = True) -> None:
        self.path = path
        head, self.colours, self.transparent = b"", None, b""
        for kind, at, length in self._chunks():
            if kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf"):
                data = self._bytes(at, length)
            if kind == b"IHDR":
                head = data
            elif kind == b"PLTE":
                self.colours = np.frombuffer(data, np.uint8).reshape(-1, 3)
            elif kind == b"tRNS":
                self.transparent = data
            elif kind == b"eXIf" and upright:
                exif = Image.Exif()
                exif.load(data)
                if exif.get(ORIENTATION, 1) != 1:
                    raise turned(path, exif[ORIENTATION])
            elif kind == b"IDAT":
                break
        self.width, self.height, self.depth, self.colour_type = struct.unpack(">IIBB", head[:10])
        if self.colour_type not in SAMPLES or (self.colour_type == 3 and self.colours is None):
            raise InputError(f"{path}: the picture is damaged (colour type {self.colour_type})")
        self.samples = SAMPLES[self.colour_type]
        self.row_bytes = -(-self.width * self.samples * self.depth // 8)
        self.above: NDArray[np.uint8] | None  # the row before, unfiltered
        self._rewind()

    @staticmethod
    def interlaced(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(29)[28:] == b"\x01"

    def read(self, top: int, bottom: int, left: int, right: int) -> Band:
        if top < self.next_row:
            self._rewind()
        most = max(1, BAND // self.row_bytes)
        while self.next_row < top:
            self._unfilter(min(most, top - self.next_row))
        bands = []
        while self.next_row < bottom:
            bands.append(self._unfilter(min(most, bottom - self.next_row))[:, :, :])
        values = self._values(np.concatenate(bands))[:, left:right]
        return self._band(values)

    def _values(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, pixels, bytes) -> (h, w, samples): fewer than 8 bits are taken apart."""
        if self.depth >= 8:
            return rows
        bits = np.unpackbits(rows[..., 0], axis=1).reshape(len(rows), -1, self.depth)
        values = np.packbits(bits, axis=2) >> (8 - self.depth)
        return values[:, : self.width]

    def _band(self, values: NDArray[np.uint8]) -> Band:
        if self.colour_type == 3:
            assert self.colours is not None
            index = np.minimum(values[..., 0], len(self.colours) - 1)
            opaque = np.full(len(self.colours), 255, np.uint8)
            opaque[: len(self.transparent)] = np.frombuffer(self.transparent, np.uint8)[: len(opaque)]
            alpha = opaque[index] if self.transparent else None
            return _over_white(self.colours[index], alpha)
        if self.colour_type in (4, 6):
            return _over_white(values[..., :-1], values[..., -1])
        alpha = None
        if self.transparent and self.depth <= 8:
            key = np.frombuffer(self.transparent, ">u2")[: self.samples]
            alpha = np.where((values == key).all(2), 0, 255).astype(np.uint8)
        if self.depth < 8:
            values = (values * (255 // (2**self.depth - 1))).astype(np.uint8)
        return _over_white(values, alpha)

    def _unfilter(self, count: int) -> NDArray[np.uint8]:
        """The next `count` rows: (count, pixels, bytes a pixel), 8 bits each."""
        stride = 1 + self.row_bytes
        raw = np.frombuffer(self._inflated(count * stride), np.uint8).reshape(count, stride)
        filters, filtered = raw[:, :1], raw[:, 1:]
        if self.depth == 16:
            filtered = filtered[:, ::2]
        pixel = self.samples if self.depth >= 8 else 1
        rows = np.concatenate(
            [np.hstack([np.zeros((1, 1), np.uint8), self.above]), np.hstack([filters, filtered])]
        )
        width = filtered.shape[1] // pixel
        header = struct.pack(">IIBBBBB", width, count + 1, 8, BYTES_TYPE[pixel], 0, 0, 0)
        data = zlib.compress(rows.tobytes(), 0)
        file = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
        )
        with of_any_size(), Image.open(io.BytesIO(file)) as picture:
            result = np.asarray(picture).reshape(count + 1, width, pixel)[1:]
        self.above = result[-1:].reshape(1, -1).copy()
        self.next_row += count
        return result

    def _rewind(self) -> None:
        self.next_row = 0
        self.above = np.zeros((1, self.row_bytes // (2 if self.depth == 16 else 1)), np.uint8)
        self.packed = self._packed()
        self.inflater = zlib.decompressobj()

    def _inflated(self, length: int) -> bytes:
        """The next `length` bytes of the filtered rows."""
        result = bytearray()
        try:
            while len(result) < length:
                feed = self.inflater.unconsumed_tail or next(self.packed, b"")
                if not feed:
                    raise self._cut_off()
                result += self.inflater.decompress(feed, length - len(result))
        except zlib.error as error:
            raise InputError(f"{self.path}: the picture is damaged ({error}, row {self.next_row})") from None
        return bytes(result)

    def _packed(self) -> Iterator[bytes]:
        for kind, at, length in self._chunks():
            if kind == b"IDAT":
                for begin in range(at, at + length, PIECE):
                    yield self._bytes(begin, min(PIECE, at + length - begin))

    def _chunks(self) -> Iterator[tuple[bytes, int, int]]:
        """Kind, place and length of each chunk's data."""
        at, end = 8, self.path.stat().st_size
        while at + 8 <= end:
            length, kind = struct.unpack(">I4s", self._bytes(at, 8))
            yield kind, at + 8, length
            at += 12 + length
            if kind == b"IEND":
                return
        raise self._cut_off()

    def _bytes(self, at: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(at)
            data = file.read(length)
        if len(data) < length:
            raise self._cut_off()
        return data

    def _cut_off(self) -> InputError:
        return InputError(
            f"{self.path}: the picture is cut off (the file ends at byte {self.path.stat().st_size})"
        )


def _over_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> Band:
    return Band(rgb(colours, alpha), None if alpha is None else alpha > 0)
