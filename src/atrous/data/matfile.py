"""Reading one matrix of whole numbers from a MATLAB 5 file, as COCO-Stuff 10k keeps its masks.

The file is a header of 128 bytes and then elements: a type, a length, the bytes, filled up to eight. A matrix
is an element of elements: flags, sizes, name, numbers (MathWorks, "MAT-File Format", chapter 1).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atrous.errors import InputError

MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
LARGEST = 1 << 29  # bytes of one unpacked element


def read_mat(path: str | Path, name: str) -> np.ndarray:
    """The matrix `name`, (H, W) int32, 0..65535; InputError naming the file where there is no such matrix."""
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[126:128] != b"IM":
            raise InputError(
                f"{path}: not a MATLAB 5 file in little-endian order (it begins with {content[:12]!r})"
            )
        found = {key: value for key, value in _matrices(content[128:]) if key == name}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the MATLAB file is damaged or cut off ({error})") from None
    if name not in found:
        raise InputError(f"{path}: no matrix {name!r} of numbers in this file")
    values = found[name]
    if values.ndim != 2 or not values.size or values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{path}: {name!r} is not a mask: expected rows and columns of numbers from 0 to 65535"
        )
    if (values != np.floor(values)).any():
        raise InputError(f"{path}: {name!r} is not a mask: its numbers are not whole")
    return values.astype(np.int32)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, place)
        if kind >> 16:  # the small form: type and length in four bytes, the data in the next four
            kind, length = kind & 0xFFFF, kind >> 16
            yield kind, data[place + 4 : place + 4 + length]
            place += 8
            continue
        if place + 8 + length > len(data):
            raise ValueError(f"an element of {length} bytes does not fit")
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + (0 if kind == COMPRESSED else -length % 8)


def _matrices(data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    for kind, body in _elements(data):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(body, LARGEST)
            if not unpacker.eof:
                raise ValueError("a compressed element is cut off or too large")
            yield from _matrices(whole)
        elif kind == MATRIX:
            parts = list(_elements(body))
            if len(parts) != 4 or parts[3][0] not in NUMBERS:
                continue  # text, cells, structures
            shape = np.frombuffer(parts[1][1], "<i4")
            numbers = np.frombuffer(parts[3][1], "<" + NUMBERS[parts[3][0]])
            yield parts[2][1].decode("latin-1"), numbers.reshape(shape, order="F")
