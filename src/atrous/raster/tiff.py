"""TIFF, BigTIFF and GeoTIFF by their tiles or strips (TIFF 6.0, GeoTIFF 1.1), decoded by tifffile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.raster.base import Band, Raster, needed, rgb, turned

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
COLOURS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, YCBCR: 3}
ASSOCIATED, UNASSOCIATED = 1, 2  # ExtraSamples: alpha that the colours are multiplied with, or not
JPEG_KINDS = (6, 7, 34892, 33007)  # Compression
ORIENTATION, COLOUR_MAP, JPEG_TABLES, NODATA = 274, 320, 347, 42113
# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams,
# RPCCoefficient
GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
ASCII = 2  # the type of a tag's values
AT_ONCE = 2**28  # bytes: the most that one row of segments may decode to


class TiffRaster(Raster):
    """The first page of a TIFF: grey, RGB, palette or YCbCr in JPEG, with 8 or 16 bits.

    Of files with more bands, the first three are taken as RGB. A pixel has no data where alpha is 0, where all its
    colours have the value of GDAL_NODATA, or where its tile or strip is missing from the file.
    """

    def __init__(self, path: Path, upright: bool = True) -> None:
        self.path, self.page = path, _first_page(path)
        page = self.page
        self.height, self.width = page.imagelength, page.imagewidth
        self._check()
        orientation = page.tags.valueof(ORIENTATION, 1)
        if upright and orientation != 1:
            raise turned(path, orientation)
        grey_or_more = COLOURS[int(page.photometric)]
        self.colours = 3 if page.samplesperpixel >= 3 else grey_or_more
        extra = [int(kind) for kind in page.extrasamples]
        alphas = [i for i, kind in enumerate(extra) if kind in (ASSOCIATED, UNASSOCIATED)]
        self.alpha = page.samplesperpixel - len(extra) + alphas[0] if alphas else None
        if self.alpha is not None and self.alpha < self.colours:
            self.colours = 1
        self.premultiplied = bool(alphas) and extra[alphas[0]] == ASSOCIATED
        self.nodata = _number(page.tags.valueof(NODATA, None))
        self.kept: dict[int, NDArray[Any] | None] = {}  # decoded segments that the next rows begin in

    @staticmethod
    def size(path: Path) -> tuple[int, int]:
        page = _first_page(path)
        return page.imagelength, page.imagewidth

    def tags(self) -> list[tuple[int, int, int, Any, bool]]:
        found = [self.page.tags[code] for code in GEOREFERENCE if code in self.page.tags]
        return [(tag.code, int(tag.dtype), tag.count, self._stored(tag), True) for tag in found]

    def _stored(self, tag: Any) -> Any:
        """A tag's value; of text its bytes, which may be no ASCII, and which GeoKeyDirectory counts to find a name."""
        if tag.dtype != ASCII:
            return tag.value
        with self.path.open("rb") as file:
            file.seek(tag.valueoffset)
            return file.read(tag.valuebytecount)

    def read(self, top: int, bottom: int, left: int, right: int) -> Band:
        samples = [*range(self.colours), *([] if self.alpha is None else [self.alpha])]
        values = np.zeros((bottom - top, right - left, len(samples)), self.page.dtype)
        there = np.ones((bottom - top, right - left), bool)
        if self.stored_plainly:
            self._copy_rows(values, there, samples, top, left)
        else:
            self._copy_segments(values, there, samples, top, left)
        colours = values[..., : self.colours]
        alpha = None if self.alpha is None else values[..., -1]
        if alpha is not None:
            there &= alpha > 0
        if self.nodata is not None:
            there &= (colours != self.nodata).any(2)
        if self.page.photometric == MINISWHITE:
            colours = np.iinfo(colours.dtype).max - colours
        elif self.page.photometric == PALETTE:
            colours = self.page.colormap.T[colours[..., 0]]
        return Band(rgb(colours, alpha, self.premultiplied), None if there.all() else there)

    def _check(self) -> None:
        """InputError for what is not read here, and for a file that ends too soon."""
        page, path = self.page, self.path
        photometric = None if page.photometric is None else int(page.photometric)
        if photometric not in COLOURS or (photometric == YCBCR and page.compression not in JPEG_KINDS):
            raise InputError(f"{path}: colours stored as {page.photometric!s}: save it as RGB or grey")
        if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16):
            kind = page.dtype or "unknown"
            raise InputError(
                f"{path}: {page.bitspersample}-bit {kind} samples: save it with 8 or 16 bits per channel"
            )
        ends = [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        size = path.stat().st_size
        if not ends or max(ends) > size:
            raise InputError(
                f"{path}: the picture is cut off (data up to byte {max(ends, default=0)} of {size})"
            )
        self.separate = page.planarconfig == 2 and page.samplesperpixel > 1
        self.tile = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, self.height), self.width)
        )
        self.grid = (-(-self.height // self.tile[0]), -(-self.width // self.tile[1]))
        planes = page.samplesperpixel if self.separate else 1
        if len(ends) != self.grid[0] * self.grid[1] * planes:
            raise InputError(
                f"{path}: the picture is damaged ({len(ends)} segments of {self.grid[0] * self.grid[1]})"
            )
        self.stored_plainly = not page.is_tiled and page.compression == 1 and page.fillorder == 1
        at_once = self.tile[0] * self.grid[1] * self.tile[1] * page.samplesperpixel * page.dtype.itemsize
        if at_once > AT_ONCE and not self.stored_plainly:
            what = "tiles" if page.is_tiled else "strips"
            raise InputError(
                f"{path}: its {what} are {self.tile[0]} rows high and compressed, {at_once / 1e6:.0f} MB at once: save "
                "it with tiles of 256 or 512 pixels, as `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT` does"
            )

    def _copy_rows(
        self, values: NDArray[Any], there: NDArray[np.bool_], samples: list[int], top: int, left: int
    ) -> None:
        """From uncompressed strips, of any height."""
        page, (height, width), (length, _) = self.page, values.shape[:2], self.tile
        bottom = top + height
        stored = 1 if self.separate else page.samplesperpixel
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        row_bytes = self.width * stored * dtype.itemsize
        with self.path.open("rb") as file:
            for plane in samples if self.separate else [0]:
                for strip in range(top // length, (bottom - 1) // length + 1):
                    first, end = max(top, strip * length), min(bottom, (strip + 1) * length)
                    here = slice(first - top, end - top)
                    offset = page.dataoffsets[plane * self.grid[0] + strip]
                    if not offset:
                        there[here] = False
                        continue
                    file.seek(offset + (first - strip * length) * row_bytes)
                    data = file.read((end - first) * row_bytes)
                    if len(data) < (end - first) * row_bytes:
                        raise InputError(f"{self.path}: the picture is cut off (row {first})")
                    rows = np.frombuffer(data, dtype).reshape(end - first, self.width, stored)
                    rows = rows[:, left : left + width]
                    if self.separate:
                        values[here, :, samples.index(plane)] = rows[..., 0]
                    else:
                        values[here] = rows[..., samples]

    def _copy_segments(
        self, values: NDArray[Any], there: NDArray[np.bool_], samples: list[int], top: int, left: int
    ) -> None:
        """From tiles, and from compressed strips."""
        (length, width), (bottom, right) = self.tile, (top + len(values), left + values.shape[1])
        used: dict[int, NDArray[Any] | None] = {}
        last = (bottom - 1) // length
        for plane in samples if self.separate else [0]:
            for y in range(top // length, last + 1):
                for x in range(left // width, (right - 1) // width + 1):
                    index = (plane * self.grid[0] + y) * self.grid[1] + x
                    segment = self.kept[index] if index in self.kept else self._decoded(index)
                    if y == last:
                        used[index] = segment
                    rows = slice(max(top, y * length), min(bottom, (y + 1) * length))
                    columns = slice(max(left, x * width), min(right, (x + 1) * width))
                    here = (
                        slice(rows.start - top, rows.stop - top),
                        slice(columns.start - left, columns.stop - left),
                    )
                    if segment is None:
                        there[here] = False
                        continue
                    part = segment[
                        rows.start - y * length : rows.stop - y * length,
                        columns.start - x * width : columns.stop - x * width,
                    ]
                    if self.separate:
                        values[(*here, samples.index(plane))] = part[..., 0]
                    else:
                        values[here] = part[..., samples]
        self.kept = used

    def _decoded(self, index: int) -> NDArray[Any] | None:
        """A tile or strip (rows, columns, samples); None where the file leaves it out."""
        page = self.page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(count)
        try:
            more = {"jpegtables": page.jpegtables} if page.compression in JPEG_KINDS else {}
            segment = page.decode(data, index, **more)[0]
        except Exception as error:  # the codecs raise their own kinds
            if "imagecodecs" in str(error):
                needed("imagecodecs", f"TIFF compressed by {page.compression.name}")
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{self.path}: the picture is damaged (segment {index}: {reason})") from None
        return None if segment is None else segment[0]


def _first_page(path: Path) -> Any:
    tifffile = needed("tifffile", "TIFF")
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            page.decode  # noqa: B018  # made while the file is open, and kept, as are the tags' values
            for code in (COLOUR_MAP, JPEG_TABLES, ORIENTATION, NODATA, *GEOREFERENCE):
                page.tags.valueof(code)
            return page
    except InputError:
        raise
    except Exception as error:  # a damaged head makes tifffile stumble in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable TIFF ({reason})") from None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(str(text).strip(" \0"))
    except ValueError:
        return None
