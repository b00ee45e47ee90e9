"""A small FlatBuffers writer, and ways to damage a file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np


def write_table(fields: list[Any]) -> bytes:
    """One table, the inverse of `Table`: bytes are a number, arrays a vector, lists a vector of tables, None absent.

    A dict holds the fields of a table inside, by number.
    """
    vtable = 4 + 2 * len(fields)
    places, inline, below = [], 4, []
    for field in fields:
        places.append(0 if field is None else inline)
        inline += 0 if field is None else len(field) if isinstance(field, bytes) else 4
    body = b""
    for field in fields:
        if isinstance(field, bytes):
            body += field
        elif field is not None:
            below.append((len(body) + 4, field))
            body += bytes(4)
    out = bytearray(struct.pack(f"<HH{len(fields)}H", vtable, inline, *places))
    out += struct.pack("<i", vtable) + body  # the distance back to the vtable, the fields
    for place, field in below:
        data, root = _below(field)
        struct.pack_into("<I", out, vtable + place, len(out) + root - vtable - place)
        out += data
    return bytes(out)


def _below(field: Any) -> tuple[bytes, int]:
    """What a field points to, and where in it the offset leads."""
    if isinstance(field, np.ndarray):
        return struct.pack("<I", len(field)) + field.tobytes(), 0
    if isinstance(field, dict):
        fields = [field.get(i) for i in range(max(field, default=-1) + 1)]
        return write_table(fields), 4 + 2 * len(fields)
    offsets, tables = [], b""
    for entry in field:
        data, root = _below(entry)
        offsets.append(4 * (len(field) - len(offsets)) + len(tables) + root)
        tables += data
    return struct.pack(f"<I{len(offsets)}I", len(field), *offsets) + tables, 0


def write_file(root: dict[int, Any], identifier: bytes = b"TFL3") -> bytes:
    data, place = _below(root)
    return struct.pack("<I", 8 + place) + identifier + data


def mutations(data: bytes, count: int, header: int = 20_000) -> Iterator[bytes]:
    """Truncated files, flipped bits and overwritten words; half of them in the first and last `header` bytes."""
    random = np.random.default_rng(0)
    for index in range(count):
        damaged = bytearray(data)
        if index % 4 == 0:
            yield bytes(damaged[: random.integers(len(data))])
            continue
        for _ in range(random.integers(1, 20)):
            place = int(random.integers(len(data)))
            if index % 2:
                place = int(random.integers(min(header, len(data)))) * (1 if random.integers(2) else -1)
            damaged[place] ^= 1 << random.integers(8)
            if index % 4 == 3:
                damaged[place : place + 4] = random.bytes(len(damaged[place : place + 4]))
        yield bytes(damaged)
