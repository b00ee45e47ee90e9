"""DeepLab v3+ of github.com/jfzhang95/pytorch-deeplab-xception, on its four backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.drn import architecture
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, indented, rename
from atrous.models.deeplab_v3 import aspp_rates

HEAD: Table = {
    "aspp.conv1": "aspp.project.0",
    "aspp.bn1": "aspp.project.1",
    "aspp.global_avg_pool.1": "aspp.branches.4.conv.0",
    "aspp.global_avg_pool.2": "aspp.branches.4.conv.1",
    "decoder.conv1": "decoder.reduce.0",
    "decoder.bn1": "decoder.reduce.1",
    "decoder.last_conv.0": "decoder.refine.0.0",
    "decoder.last_conv.1": "decoder.refine.0.1",
    "decoder.last_conv.4": "decoder.refine.1.0",
    "decoder.last_conv.5": "decoder.refine.1.1",
    "decoder.last_conv.8": "classifier",
}
for _i in range(4):
    HEAD[f"aspp.aspp{_i + 1}.atrous_conv"] = f"aspp.branches.{_i}.0"
    HEAD[f"aspp.aspp{_i + 1}.bn"] = f"aspp.branches.{_i}.1"
OPTIONS = {"align_corners": True, "dropout": 0.5}
MOBILENET = {"dilate_from": "next", "pad_input": True}
XCEPTION = {
    "features": "before",
    "relu_shortcut": True,  # its ReLUs work in place, on what the shortcut reads
    "exit_relu": "outside",
    "dilate_strided": False,
    "eps": 1e-5,
}


def xception_table() -> Table:
    """Block n is our block n - 1; its layers lie in one row "rep", the ReLUs counted."""
    table: Table = {}
    for n in (1, 2):
        table |= {f"conv{n}": f"stem.{n - 1}.conv", f"bn{n}": f"stem.{n - 1}.bn"}
    convs = [(f"conv{n}", f"bn{n}", f"blocks.20.stack.conv{n - 2}") for n in (3, 4, 5)]
    for n in range(1, 21):
        ours = f"blocks.{n - 1}"
        first = 0 if n <= 2 else 1  # blocks 1 and 2 do not begin with a ReLU
        for i in range(3):
            at = first + 3 * i
            convs.append((f"block{n}.rep.{at}", f"block{n}.rep.{at + 1}", f"{ours}.stack.conv{i + 1}"))
        table |= {f"block{n}.skip": f"{ours}.shortcut.conv", f"block{n}.skipbn": f"{ours}.shortcut.bn"}
    for conv, bn, ours in convs:
        table |= {
            f"{conv}.conv1": f"{ours}.conv_dw",
            f"{conv}.bn": f"{ours}.bn_dw",
            f"{conv}.pointwise": f"{ours}.conv_pw",
            bn: f"{ours}.bn_pw",
        }
    return table


def mobilenet_table() -> Table:
    """Inverted residuals whose layers lie in one row, the ReLUs counted."""
    table: Table = {
        "features.0": "features.0",
        "low_level_features": None,  # the same weights twice
        "high_level_features": None,
    }
    for n in range(1, 18):
        ours = ("0.0", "0.1", "1", "2") if n == 1 else ("0.0", "0.1", "1.0", "1.1", "2", "3")
        for theirs, name in zip((0, 1, 3, 4, 6, 7), ours, strict=False):
            table[f"features.{n}.conv.{theirs}"] = f"features.{n}.conv.{name}"
    return table


def recognise(content: Content) -> bool:
    return {"aspp.aspp1.atrous_conv.weight", "decoder.last_conv.8.weight"} <= content.tensors.keys()


def find_backbone(weights: Mapping[str, Tensor]) -> tuple[str, Table, dict[str, Any]]:
    """(our name, names, options) of the backbone with these weights; ValueError for one that is not known."""
    if "block20.skip.weight" in weights:
        return "xception65", xception_table(), XCEPTION
    if "features.0.0.weight" in weights:
        return "mobilenet_v2", mobilenet_table(), MOBILENET
    if "layer0.0.weight" in weights:
        return architecture(weights), {"": ""}, {}
    units = len({name.split(".")[1] for name in weights if name.startswith("layer3.")})
    if units not in BOTTLENECK_RESNETS:
        raise ValueError(f"a ResNet with {units} units in layer3 is not among {BOTTLENECK_RESNETS}")
    return BOTTLENECK_RESNETS[units], {"": ""}, {"dilate_from": "first", "multi_grid": (1, 2, 4)}


def convert(
    content: Content, output_stride: int | None = None, atrous_rates: Sequence[int] | None = None
) -> Converted:
    """output_stride: 16, as its train.py, and 8 for the DRN. atrous_rates: (6, 12, 18) at 16, doubled at 8."""
    weights = content.tensors
    backbone, names, options = find_backbone(indented("backbone", weights))
    table = HEAD | {
        f"backbone.{theirs}".strip("."): ours if ours is None else f"backbone.{ours}".strip(".")
        for theirs, ours in names.items()
    }
    stride = output_stride or (8 if backbone.startswith("drn") else 16)
    rates = numbers_of(content, "atrous_rates", atrous_rates, aspp_rates(stride))
    classes = len(weights["decoder.last_conv.8.weight"])
    options = OPTIONS | options | {"atrous_rates": rates}
    config = ModelConfig("deeplab_v3plus", backbone, classes, stride, options=options)
    notes = assumed(config, output_stride=output_stride, atrous_rates=atrous_rates)
    return Converted(config, rename(weights, table), labels=labels_for(classes), notes=notes)


SOURCE = Source("jfzhang95/pytorch-deeplab-xception: DeepLab v3+", recognise, convert)
