"""github.com/kazuto1011/deeplab-pytorch: v2, v3 and v3+ on ResNet-101, most of them in its three-scale wrapper "MSC".

Its ResNet is Caffe's: stride on the first 1x1, max pool that rounds sizes up, all of a dilated block at the new rate.
Pictures are BGR, 0..255, minus the mean. Its "v1", the COCO weights that trainings of v2 start from, is one 1x1
convolution behind the dilated ResNet: here a 3x3 of which only the centre is not 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F

from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig, Normalization
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, indented, rename
from atrous.models.deeplab_v3 import aspp_rates

MEAN_RGB = (122.675, 116.669, 104.008)
NORMALIZATION = Normalization(tuple(m / 255 for m in MEAN_RGB), (1 / 255,) * 3)
RESNET = {"stride_on_first_1x1": True, "ceil_mode": True, "dilate_from": "first"}
V2_RATES = (6, 12, 18, 24)
MULTI_GRID = (1, 2, 4)
WRAPPED = "base"  # MSC's name for the model in it
PARTS = {"reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3"),
         "shortcut": ("downsample.0", "downsample.1")}  # fmt: skip


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return any(f"{prefix}layer1.conv1.conv.weight" in names and f"{prefix}layer5.block1.conv3x3.conv.weight" in names
               for prefix in ("", f"{WRAPPED}."))  # fmt: skip


def convert(
    content: Content,
    output_stride: int | None = None,
    msc: bool | None = None,
    atrous_rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] | None = None,
) -> Converted:
    """output_stride: 8 in v2, as there; of v3 and v3+ 16. msc: None is as the file's names tell. atrous_rates: of v2
    (6, 12, 18, 24), its "V2S" has (3, 6, 9, 12); of v3 and v3+ (6, 12, 18) at 16, doubled at 8. multi_grid: of v3 and
    v3+, (1, 2, 4).
    """
    wrapped = any(name.startswith(f"{WRAPPED}.") for name in content.tensors)
    weights = indented(WRAPPED, content.tensors) if wrapped else dict(content.tensors)
    units = sum(bool(re.fullmatch(r"layer4\.block\d+\.reduce\.conv\.weight", name)) for name in weights)
    if units not in BOTTLENECK_RESNETS:
        raise content.error(f"a ResNet with {units} blocks in layer4 is not among {BOTTLENECK_RESNETS}")
    options: dict[str, Any] = {"msc": wrapped if msc is None else msc}
    branches = sum(bool(re.fullmatch(r"aspp\.c\d+\.weight", name)) for name in weights)
    if "fc.weight" in weights:
        model, last = "deeplab_v2", "fc.weight"
        weights[last] = F.pad(weights[last], (1, 1, 1, 1))
        options["head"] = "large_fov"
        table: Table = {"fc": "branches.0"}
    elif branches:
        model, last = "deeplab_v2", "aspp.c0.weight"
        options["atrous_rates"] = numbers_of(content, "atrous_rates", atrous_rates, V2_RATES)
        table = {f"aspp.c{i}": f"branches.{i}" for i in range(branches)}
    else:
        plus = "fc2.conv3.weight" in weights
        model, last = ("deeplab_v3plus", "fc2.conv3.weight") if plus else ("deeplab_v3", "fc2.weight")
        options["atrous_rates"] = numbers_of(
            content, "atrous_rates", atrous_rates, aspp_rates(output_stride or 16)
        )
        options["multi_grid"] = numbers_of(content, "multi_grid", multi_grid, MULTI_GRID)
        table = _aspp("aspp" if plus else "context") | (_decoder() if plus else {"fc2": "classifier"})
    first = "layer1.conv1.conv.weight"
    weights[first] = weights[first].flip(1)  # BGR to RGB
    classes = len(weights[last])
    stride = output_stride or (8 if model == "deeplab_v2" else 16)
    config = ModelConfig(model, BOTTLENECK_RESNETS[units], classes, stride, options=RESNET | options)
    renamed = rename(weights, table | _resnet(units))
    prefix = f"{WRAPPED}." if wrapped else ""
    renamed.origin = {ours: prefix + theirs for ours, theirs in renamed.origin.items()}
    renamed.unknown = [prefix + theirs for theirs in renamed.unknown]
    notes = assumed(config, output_stride=output_stride, atrous_rates=atrous_rates, multi_grid=multi_grid)
    return Converted(config, renamed, NORMALIZATION, labels_for(classes), notes=notes)


def _unit(theirs: str, conv: str, norm: str) -> Table:
    return {f"{theirs}.conv": conv, f"{theirs}.bn": norm}


def _resnet(units: int) -> Table:
    """layer1 is the stem, layer2 .. layer5 are blocks 1 to 4, their units counted from 1."""
    table = _unit("layer1.conv1", "backbone.conv1", "backbone.bn1")
    for block in range(1, 5):
        for i in range(max(units, 8)):  # 8: of ResNet-152's block 2
            ours = f"backbone.layer{block}.{i}"
            for part, (conv, norm) in PARTS.items():
                table |= _unit(f"layer{block + 1}.block{i + 1}.{part}", f"{ours}.{conv}", f"{ours}.{norm}")
    return table


def _aspp(ours: str) -> Table:
    table = _unit("fc1", f"{ours}.project.0", f"{ours}.project.1")
    for i in range(4):
        table |= _unit(f"aspp.stages.c{i}", f"{ours}.branches.{i}.0", f"{ours}.branches.{i}.1")
    pooled = f"{ours}.branches.4.conv"
    return table | _unit("aspp.stages.imagepool.conv", f"{pooled}.0", f"{pooled}.1")


def _decoder() -> Table:
    table = _unit("reduce", "decoder.reduce.0", "decoder.reduce.1") | {"fc2.conv3": "classifier"}
    for i in range(2):
        table |= _unit(f"fc2.conv{i + 1}", f"decoder.refine.{i}.0", f"decoder.refine.{i}.1")
    return table


SOURCE = Source("kazuto1011/deeplab-pytorch: DeepLab v2, v3, v3+ on ResNet-101", recognise, convert)
