"""Weights files of Caffe (.caffemodel), without Caffe: layer names, and the blobs of each.

A NetParameter of caffe.proto; the numbers below are its field numbers. Old files have `layers` (V1, with the shape of
a blob as num, channels, height, width), newer ones `layer` and `shape`.
https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.importers.protobuf import Wire, read_message

# Far above what a network has, and low enough that a made-up file cannot fill the memory.
MOST_LAYERS = 20_000
MOST_BLOBS = 16  # of a layer
MOST_DIMENSIONS = 8

NET_LAYERS = {2: (4, 6), 100: (1, 7)}  # NetParameter.layers, .layer -> (name, blobs) in it
SHAPE, DATA, DOUBLE_DATA, LEGACY_SHAPE = 7, 5, 8, (1, 2, 3, 4)  # BlobProto
DIMENSIONS = 1  # BlobShape


def read_blobs(path: Path) -> dict[str, Tensor]:
    """{"conv1_1.0": weight, "conv1_1.1": bias, ...}: float32, in the shapes that the file gives.

    Raises InputError where the file is truncated, damaged or no NetParameter.
    """
    net = read_message(path)
    blobs: dict[str, Tensor] = {}
    layers = 0
    for field in net.fields():
        if field.number not in NET_LAYERS:
            continue
        layers += 1
        if layers > MOST_LAYERS:
            raise net.damaged(f"more than {MOST_LAYERS} layers")
        name, found = _layer(net.message(field), *NET_LAYERS[field.number])
        blobs |= {f"{name}.{i}": blob for i, blob in enumerate(found)}
    if not blobs:
        raise net.damaged(f"{layers} layers and no weights: not a .caffemodel")
    return blobs


def _layer(layer: Wire, name_field: int, blobs_field: int) -> tuple[str, list[Tensor]]:
    name = ""
    blobs: list[Tensor] = []
    for field in layer.fields():
        if field.number == name_field:
            name = layer.text(field)
        elif field.number == blobs_field:
            if len(blobs) == MOST_BLOBS:
                raise layer.damaged(f"a layer with more than {MOST_BLOBS} blobs")
            blobs.append(_blob(layer.message(field)))
    return name, blobs


def _blob(blob: Wire) -> Tensor:
    shape: list[int] | None = None
    legacy = dict.fromkeys(LEGACY_SHAPE, 0)
    parts: list[NDArray[Any]] = []
    for field in blob.fields():
        if field.number == SHAPE:
            shape = _shape(blob.message(field))
        elif field.number in legacy:
            legacy[field.number] = blob.number(field)
        elif field.number in (DATA, DOUBLE_DATA):
            parts.append(blob.floats(field, "f4" if field.number == DATA else "f8"))
    if shape is None:
        shape = list(legacy.values())
    values = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, "f4")])
    if min(shape, default=0) < 0 or prod(shape) != len(values):
        raise blob.damaged(f"{len(values)} numbers for a blob of {shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _shape(message: Wire) -> list[int]:
    shape: list[int] = []
    for field in message.fields():
        if field.number == DIMENSIONS:
            shape += message.numbers(field, MOST_DIMENSIONS)
        if len(shape) > MOST_DIMENSIONS:
            raise message.damaged(f"a blob of {len(shape)} dimensions")
    return shape
