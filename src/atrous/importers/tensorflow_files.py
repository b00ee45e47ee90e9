"""Weights files of TensorFlow, without TensorFlow: checkpoints in the V2 format, and frozen graphs.

A checkpoint is `model.ckpt.index`, a table of names in LevelDB's format, and `model.ckpt.data-00000-of-00001`, the
numbers (tensorflow/core/util/tensor_bundle). A frozen graph (.pb) is a GraphDef whose Const nodes are the weights.
The numbers below are field and enum numbers of tensorflow/core/protobuf and tensorflow/core/framework.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError
from atrous.importers.leveldb import read_leveldb
from atrous.importers.protobuf import Wire, read_message

# Far above what a network has, and low enough that a made-up file cannot fill the memory.
MOST_TENSORS = 100_000
MOST_SHARDS = 1000
MOST_DIMENSIONS = 8
MOST_REPEATED = 10_000_000  # numbers that a frozen graph writes as one value for all

DTYPES = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    9: "i8",
    10: "?",
    19: "f2",
}  # DataType -> numpy
VALUES = {5: "f4", 6: "f8"}  # TensorProto.float_val, .double_val
INTS = (7, 10, 11)  # .int_val, .int64_val, .bool_val


@dataclass
class Entry:
    """Where a tensor of a checkpoint lies. dtype: "" for strings and the like."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    in_slices: bool = False


def checkpoint_index(path: Path) -> Path | None:
    """The index file that `model.ckpt`, one of its files, or a folder with one checkpoint stands for."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) > 1:
            names = ", ".join(p.name.removesuffix(".index") for p in found[:5])
            raise InputError(f"{path}: {len(found)} checkpoints: give one of them, {names}")
        return found[0] if found else None
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    index = path.with_name(f"{prefix}.index")
    return index if index.is_file() and (prefix != path.name or not path.exists()) else None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, given its .index, in TensorFlow's own names and shapes; strings are left out.

    Raises InputError where a file is missing, truncated, damaged or of an unknown kind.
    """
    entries: dict[str, Entry] = {}
    shards = 0
    for key, value in read_leveldb(path, MOST_TENSORS):
        wire = Wire(memoryview(value), str(path))
        if not key:
            shards = _header(wire)
            continue
        try:
            entries[key.decode()] = _entry(wire)
        except UnicodeDecodeError:
            raise wire.damaged("a name is no text") from None
    prefix = path.name.removesuffix(".index")
    files = [path.with_name(f"{prefix}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
    sizes = []
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: missing; it belongs to {path.name}")
        sizes.append(file.stat().st_size)
    tensors = {}
    left = sum(sizes)  # no two tensors share bytes
    for name, entry in entries.items():
        if not entry.dtype:
            continue
        left -= entry.size
        if entry.in_slices:
            raise InputError(f"{path}: {name} is kept in slices, which are not read here; save it whole")
        if entry.shard >= shards or entry.offset + entry.size > sizes[entry.shard] or left < 0:
            raise InputError(
                f"{path}: truncated or damaged ({name} lies outside the data files); fetch it again"
            )
        kind = np.dtype(entry.dtype).newbyteorder("<")
        if entry.size != prod(entry.shape) * kind.itemsize:
            raise InputError(f"{path}: damaged ({entry.size} bytes for {name} {entry.shape}); fetch it again")
        values = np.fromfile(files[entry.shard], kind, prod(entry.shape), offset=entry.offset)
        tensors[name] = _tensor(values, entry.shape)
    return tensors


def read_frozen_graph(path: Path) -> dict[str, Tensor]:
    """The Const nodes of a GraphDef: name -> tensor. Raises InputError as `read_checkpoint` does."""
    graph = read_message(path)
    tensors: dict[str, Tensor] = {}
    repeated = 0
    for field in graph.fields():
        if field.number != 1:
            continue
        name, op, value = _node(graph.message(field))
        if op != "Const" or value is None:
            continue
        array, shape = _constant(value)
        if array is None:
            continue
        if len(array) == 1 < prod(shape):
            repeated += prod(shape)
            if repeated > MOST_REPEATED:
                raise value.damaged(f"a constant of shape {shape} that has one value")
            array = np.repeat(array, prod(shape))
        if len(array) != prod(shape):
            raise value.damaged(f"{len(array)} numbers for {name} {shape}")
        tensors[name] = _tensor(array, shape)
        if len(tensors) > MOST_TENSORS:
            raise graph.damaged(f"more than {MOST_TENSORS} constants")
    if not tensors:
        raise graph.damaged("no constants: not a frozen graph")
    return tensors


def _tensor(values: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy()).reshape(shape)


def _header(header: Wire) -> int:
    """BundleHeaderProto: the number of data files."""
    shards = 0
    for field in header.fields():
        if field.number == 1:
            shards = header.number(field)
        elif field.number == 2 and header.number(field) != 0:
            raise InputError(f"{header.where}: written on a big-endian machine; not read here")
    if not 0 < shards <= MOST_SHARDS:
        raise header.damaged(f"{shards} data files")
    return shards


def _entry(message: Wire) -> Entry:
    """BundleEntryProto."""
    entry = Entry()
    for field in message.fields():
        if field.number == 1:
            entry.dtype = DTYPES.get(message.number(field), "")
        elif field.number == 2:
            entry.shape = _shape(message.message(field))
        elif field.number in (3, 4, 5):
            value = message.number(field)
            if value < 0:
                raise message.damaged(f"field {field.number} is {value}")
            setattr(entry, {3: "shard", 4: "offset", 5: "size"}[field.number], value)
        elif field.number == 7:
            entry.in_slices = True
    return entry


def _shape(message: Wire) -> tuple[int, ...]:
    """TensorShapeProto."""
    shape: list[int] = []
    for field in message.fields():
        if field.number != 2:
            continue
        dimension = message.message(field)
        size = sum(dimension.number(f) for f in dimension.fields() if f.number == 1)
        shape.append(size)
        if size < 0 or len(shape) > MOST_DIMENSIONS:
            raise message.damaged(f"a tensor of shape {shape}")
    return tuple(shape)


def _node(node: Wire) -> tuple[str, str, Wire | None]:
    """Name, operator and "value" of a NodeDef."""
    name = op = ""
    value: Wire | None = None
    for field in node.fields():
        if field.number == 1:
            name = node.text(field)
        elif field.number == 2:
            op = node.text(field)
        elif field.number == 5 and op == "Const":
            entry = {f.number: f for f in node.message(field).fields()}
            if 1 in entry and 2 in entry and node.text(entry[1]) == "value":
                tensors = [f for f in node.message(entry[2]).fields() if f.number == 8]
                value = node.message(tensors[-1]) if tensors else None
    return name, op, value


def _constant(proto: Wire) -> tuple[NDArray[Any] | None, tuple[int, ...]]:
    """Values and shape of a TensorProto; None where it holds no numbers."""
    kind, content = "", None
    shape: tuple[int, ...] = ()
    parts: list[NDArray[Any]] = []
    for field in proto.fields():
        if field.number == 1:
            kind = DTYPES.get(proto.number(field), "")
        elif field.number == 2:
            shape = _shape(proto.message(field))
        elif field.number == 4:
            content = proto.bytes(field)
        elif field.number in VALUES:
            parts.append(proto.floats(field, VALUES[field.number]))
        elif field.number in INTS:
            parts.append(np.array(proto.numbers(field, MOST_REPEATED), np.int64))
    if not kind:
        return None, shape
    dtype = np.dtype(kind).newbyteorder("<")
    if content is not None and len(content):
        if len(content) % dtype.itemsize:
            raise proto.damaged(f"{len(content)} bytes of {kind}")
        return np.frombuffer(content, dtype), shape
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate(parts or [np.empty(0)]).astype(dtype), shape
