"""Small writers of foreign formats, for tests: Protocol Buffers and .caffemodel."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field of a message: an int as a varint, a float as 4 bytes, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values: Tensor, v1: bool = False, double: bool = False, packed: bool = True) -> bytes:
    """A BlobProto; v1 writes the shape as num, channels, height, width."""
    shape = list(values.shape)
    if v1:
        head = b"".join(field(i + 1, n) for i, n in enumerate([1] * (4 - len(shape)) + shape))
    else:
        head = field(7, field(1, b"".join(map(varint, shape))))
    array = values.numpy().astype(np.float64 if double else np.float32)
    if packed:
        return head + field(8 if double else 5, array.tobytes())
    return head + b"".join(field(5, float(v)) for v in array.flatten())


def write_caffemodel(
    path: Path, layers: Mapping[str, Sequence[Tensor]], v1: bool = False, **how: bool
) -> Path:
    """A NetParameter with these layers, and between them one without weights."""
    name, blobs, number = (4, 6, 2) if v1 else (1, 7, 100)
    net = [field(1, "net")]
    for layer, values in layers.items():
        body = field(name, layer) + b"".join(field(blobs, blob(v, v1, **how)) for v in values)
        net += [field(number, body), field(number, field(name, f"relu_{layer}"))]
    path.write_bytes(b"".join(net))
    return path
