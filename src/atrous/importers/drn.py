"""Dilated residual networks of their authors (github.com/fyu/drn): ImageNet classifiers and DRNSeg. Backbones here.

DRNSeg is the backbone, one 1x1 convolution to the classes and a fixed transposed convolution: no DeepLab, so only
its backbone is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from atrous.backbones import drn
from atrous.backbones.resnet import Bottleneck
from atrous.config import Normalization
from atrous.importers.convert import Converted, Source, backbone_only
from atrous.importers.files import Content
from atrous.importers.names import Table, indented, rename

LEVELS = range(1, 9)
# DRNSeg keeps its backbone as the row of children "base": conv1, bn1, relu, layer1 .. (C) or layer0, layer1 .. (D)
SEGMENTATION: dict[str, Table] = {
    "C": {"base.0": "conv1", "base.1": "bn1", **{f"base.{2 + n}": f"layer{n}" for n in LEVELS}},
    "D": {f"base.{n}": f"layer{n}" for n in (0, *LEVELS)},
}
NO_SHORTCUT: Table = {  # DRN-C has these weights and does not use them
    "layer7.0.downsample": None,
    "layer8.0.downsample": None,
    "base.9.0.downsample": None,
    "base.10.0.downsample": None,
}
CITYSCAPES = Normalization((0.290101, 0.328081, 0.286964), (0.182954, 0.186566, 0.184475))  # its info.json
NAMES = {
    (architecture, block is Bottleneck, blocks): name
    for name, builder in vars(drn).items()
    if isinstance(builder, partial)
    for architecture, block, blocks in [builder.args]
}


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    last = {"layer8.0.weight", "layer8.0.conv1.weight"} & names
    segmentation = {"base.0.weight", "base.0.0.weight"} & names
    return bool(last) or ("seg.weight" in names and bool(segmentation))


def architecture(weights: Mapping[str, Tensor]) -> str:
    """Our name of the DRN whose weights, in the authors' names, these are; ValueError for one not known here."""
    kind = "D" if "layer0.0.weight" in weights else "C"
    blocks = []
    for level in LEVELS:
        inside = {int(name.split(".")[0]) for name in indented(f"layer{level}", weights)}
        row = kind == "D" and level in (1, 2, 7, 8)  # convolution, batch norm and ReLU, one behind the other
        blocks.append((max(inside) + 2) // 3 if row else len(inside))
    found = kind, "layer5.0.conv3.weight" in weights, tuple(blocks)
    if found not in NAMES:
        raise ValueError(f"a DRN-{kind} with {tuple(blocks)} blocks is not among {', '.join(NAMES.values())}")
    return NAMES[found]


def convert(content: Content, model: str = "deeplab_v3plus") -> Converted:
    """model: which of our models it becomes the backbone of."""
    weights = content.tensors
    table: Table = {"": "", "fc": None} | NO_SHORTCUT
    normalization = Normalization()
    if "seg.weight" in weights:
        row = SEGMENTATION["D" if "base.0.0.weight" in weights else "C"]
        table = row | NO_SHORTCUT | {"seg": None, "up": None}
        weights = rename(weights, row).weights
        if len(content.tensors["seg.weight"]) == 19:
            normalization = CITYSCAPES
    return backbone_only(content, model, architecture(weights), table, drn.OUTPUT_STRIDE, normalization)


SOURCE = Source("fyu/drn: its classifiers and DRNSeg (backbone only)", recognise, convert, backbones=True)
