"""Read Protocol Buffers that nobody vouches for: every length is checked, nothing is copied, nothing recurses.

The wire format (https://protobuf.dev/programming-guides/encoding): a message is a row of fields, each a key (number
of the field * 8 + wire type) and a value. A value is a varint (7 bits a byte, lowest first), 4 or 8 bytes, or a
length and so many bytes, which are a string, packed numbers or another message. Which of these, the schema tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which no schema here has
MOST_FIELDS = 1_000_000  # of one message; packed numbers are one field
MOST_BYTES = 2**31  # protobuf's own limit


class Field(NamedTuple):
    """number: in the schema. wire: how it is written. value: an int for VARINT, else the bytes."""

    number: int
    wire: int
    value: Any


class Wire:
    """The fields of one message in `data`; `where` goes into the error messages."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.where = data, where

    def fields(self) -> Iterator[Field]:
        """Field by field; InputError where one reaches beyond the message."""
        data, at, count = self.data, 0, 0
        while at < len(data):
            key, at = self.varint(at)
            number, wire = key >> 3, key & 7
            count += 1
            if count > MOST_FIELDS or number == 0:
                raise self.damaged(f"field {number}, the {count}th of a message")
            if wire == VARINT:
                value, at = self.varint(at)
                yield Field(number, wire, value)
                continue
            if wire == BYTES:
                size, at = self.varint(at)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise self.damaged(f"wire type {wire}")
            if size > len(data) - at:
                raise self.damaged(f"a field of {size} bytes where {len(data) - at} are left")
            yield Field(number, wire, data[at : at + size])
            at += size

    def varint(self, at: int) -> tuple[int, int]:
        """The varint at `at`, below 2**64, and where the next value begins."""
        result = 0
        for i in range(10):
            if at + i >= len(self.data):
                raise self.damaged("it ends inside a number")
            byte = self.data[at + i]
            result |= (byte & 127) << (7 * i)
            if byte < 128:
                return result & (2**64 - 1), at + i + 1
        raise self.damaged("a number of more than 10 bytes")

    def message(self, field: Field) -> Wire:
        """The message that a field holds."""
        return Wire(self.bytes(field), self.where)

    def bytes(self, field: Field) -> memoryview:
        if field.wire != BYTES:
            raise self.damaged(f"field {field.number} has wire type {field.wire}")
        value: memoryview = field.value
        return value

    def text(self, field: Field) -> str:
        try:
            return bytes(self.bytes(field)).decode()
        except UnicodeDecodeError:
            raise self.damaged(f"field {field.number} is no text") from None

    def number(self, field: Field) -> int:
        """A signed 64-bit int."""
        if field.wire != VARINT:
            raise self.damaged(f"field {field.number} has wire type {field.wire}")
        value: int = field.value
        return value - 2**64 if value >= 2**63 else value

    def numbers(self, field: Field, at_most: int) -> list[int]:
        """Repeated ints, packed or one of them."""
        if field.wire != BYTES:
            return [self.number(field)]
        inner, found, at = self.message(field), [], 0
        while at < len(inner.data):
            value, at = inner.varint(at)
            found.append(value - 2**64 if value >= 2**63 else value)
            if len(found) > at_most:
                raise self.damaged(f"more than {at_most} numbers")
        return found

    def floats(self, field: Field, dtype: str) -> NDArray[Any]:
        """Repeated "f4" or "f8", packed or one of them, as a view of the file."""
        kind = np.dtype(dtype).newbyteorder("<")
        one = field.wire == (FIXED32 if kind.itemsize == 4 else FIXED64)
        if not one and (field.wire != BYTES or len(field.value) % kind.itemsize):
            raise self.damaged(f"field {field.number} is no row of {dtype}")
        return np.frombuffer(field.value, kind)

    def damaged(self, reason: str) -> InputError:
        return InputError(f"{self.where}: truncated or damaged ({reason}); fetch the file again")


def read_message(path: Path) -> Wire:
    """The message that a whole file is; InputError where it cannot be read or is larger than such files can be."""
    try:
        if path.stat().st_size >= MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are more than such a file can have")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return Wire(memoryview(data), str(path))
