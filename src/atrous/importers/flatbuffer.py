"""Read FlatBuffers that nobody vouches for: every offset is checked, nothing is copied, nothing recurses.

The layout (https://flatbuffers.dev/internals): a file begins with the offset of its root table. A table begins
with the distance back to its vtable, a list of 16-bit places in the table, one for each field; 0 or a list
that is too short means: the field has its default. Vectors and tables are reached by offsets that
count from where they stand. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError


class Buffer:
    """The bytes of a file, and `where` they come from, for the messages."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where

    def number(self, kind: str, position: int) -> Any:
        """The number at a position; `kind` as in `struct`: b, B, h, H, i, I, q, Q, f, d, ?."""
        self.check(position, struct.calcsize(kind))
        return struct.unpack_from(f"<{kind}", self.data, position)[0]

    def check(self, position: int, size: int) -> None:
        """InputError where `size` bytes from `position` on are not all in the file."""
        if position < 0 or position + size > len(self.data):
            raise self.damaged(f"an offset points to byte {position + size} of {len(self.data)}")

    def damaged(self, reason: str) -> InputError:
        return InputError(f"{self.where}: truncated or damaged ({reason}); fetch the file again")


class Table:
    """One table of a buffer. Fields go by their number in the schema; an absent one gives its default."""

    def __init__(self, buffer: Buffer, position: int) -> None:
        self.buffer, self.position = buffer, position
        self.vtable = position - buffer.number("i", position)
        self.vtable_size = buffer.number("H", self.vtable)
        if self.vtable_size < 4:
            raise buffer.damaged(f"a table of {self.vtable_size} bytes")

    def number(self, field: int, kind: str, default: float = 0) -> Any:
        """A number or enum; `kind` as in `Buffer.number`."""
        position = self._find(field)
        return default if position is None else self.buffer.number(kind, position)

    def numbers(self, field: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers as a read-only view of the file; empty where it is absent."""
        position = self._follow(field)
        if position is None:
            return np.empty(0, dtype)
        kind = np.dtype(dtype).newbyteorder("<")
        length = self.buffer.number("I", position)
        self.buffer.check(position + 4, length * kind.itemsize)
        return np.frombuffer(self.buffer.data, kind, length, position + 4)

    def table(self, field: int) -> Table | None:
        """A table, or the value of a union."""
        position = self._follow(field)
        return None if position is None else Table(self.buffer, position)

    def tables(self, field: int, at_most: int) -> list[Table]:
        """A vector of tables; InputError for more than `at_most` of them."""
        offsets = self.numbers(field, "u4")
        if len(offsets) == 0:
            return []
        if len(offsets) > at_most:
            raise self.buffer.damaged(f"a list of {len(offsets)}, where {at_most} is much")
        first = (self._follow(field) or 0) + 4
        return [Table(self.buffer, first + 4 * i + offset) for i, offset in enumerate(offsets.tolist())]

    def _find(self, field: int) -> int | None:
        """Where a field lies in the file, or None for its default."""
        entry = 4 + 2 * field  # behind the sizes of vtable and table
        if entry + 2 > self.vtable_size:
            return None
        place = self.buffer.number("H", self.vtable + entry)
        return self.position + place if place else None

    def _follow(self, field: int) -> int | None:
        """Where the vector or table lies that a field points to."""
        position = self._find(field)
        return None if position is None else position + self.buffer.number("I", position)


def read_root(data: bytes, identifier: bytes, where: str) -> Table:
    """The root table of a file. `identifier`: the four bytes that follow its offset, such as b"TFL3".

    Raises InputError for another identifier or a root outside the file; all methods of `Table` raise it for
    whatever points out of the file.
    """
    if data[4:8] != identifier:
        raise InputError(f"{where}: not a FlatBuffers file of kind {identifier.decode()}")
    buffer = Buffer(data, where)
    return Table(buffer, buffer.number("I", 0))
