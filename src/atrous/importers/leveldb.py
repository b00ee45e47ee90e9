"""Read tables in LevelDB's format that nobody vouches for, such as the index of a TensorFlow checkpoint.

A table is a row of blocks, each followed by its compression (1 byte) and a checksum (4 bytes). The last 48 bytes tell
where its index lies: a block whose values are the places of the others. A block is a row of entries (how much of the
last key to keep, length of the rest of the key, length of the value, rest of the key, value), then the places at which
a reader may begin, which are not needed to read all of it.
https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from atrous.errors import InputError
from atrous.importers.protobuf import Wire

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
MOST_BYTES = 2**28  # an index is some hundred kilobytes
MOST_KEY = 4096


def read_leveldb(path: Path, at_most: int) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values, in order; InputError where the file is no such table, damaged or compressed."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are no index")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise InputError(f"{path}: truncated, or not the index of a TensorFlow checkpoint (V2)")
    table = Wire(memoryview(data), str(path))
    footer = Wire(table.data[-FOOTER:], table.where)
    _, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    count = size = 0
    for _, place in _entries(_block(table, index)):
        handle, _ = _handle(Wire(memoryview(place), table.where), 0)
        size += handle[1]
        if size > len(data):
            raise table.damaged("blocks that overlap")
        for key, value in _entries(_block(table, handle)):
            count += 1
            if count > at_most:
                raise table.damaged(f"more than {at_most} entries")
            yield key, value


def _handle(wire: Wire, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and what follows them."""
    offset, at = wire.varint(at)
    size, at = wire.varint(at)
    return (offset, size), at


def _block(table: Wire, handle: tuple[int, int]) -> Wire:
    """The entries of a block."""
    offset, size = handle
    if offset + size + TRAILER > len(table.data) or size < 4:
        raise table.damaged(f"a block of {size} bytes at {offset}")
    if table.data[offset + size] != 0:
        raise InputError(f"{table.where}: a compressed index is not read here; save the checkpoint again")
    (restarts,) = struct.unpack("<I", table.data[offset + size - 4 : offset + size])
    end = size - 4 - 4 * restarts
    if end < 0:
        raise table.damaged(f"a block with {restarts} restarts")
    return Wire(table.data[offset : offset + end], table.where)


def _entries(block: Wire) -> Iterator[tuple[bytes, bytes]]:
    at, key = 0, b""
    while at < len(block.data):
        shared, at = block.varint(at)
        rest, at = block.varint(at)
        length, at = block.varint(at)
        if shared > len(key) or shared + rest > MOST_KEY or at + rest + length > len(block.data):
            raise block.damaged("an entry reaches beyond its block")
        key = key[:shared] + bytes(block.data[at : at + rest])
        at += rest
        yield key, bytes(block.data[at : at + length])
        at += length
