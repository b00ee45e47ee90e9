"""github.com/hszhao/semseg: the authors' PSPNet in PyTorch, on ResNet-50, 101 and 152 with the deep stem.

Every resize aligns corners. It takes pictures of 8 n + 1 pixels only and gives logits of their size; so do we, for any
size. It predicts windows, the picture and its mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig, Protocol
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, rename

STEM = ("conv1.0", "conv1.1", "", "conv1.3", "conv1.4", "", "conv1.6", "bn1")  # layer0, its ReLUs counted
BINS = (1, 2, 3, 6)
OPTIONS: dict[str, Any] = {"align_corners": True, "deep_stem": True, "dilate_from": "first"}
# by the number of classes: Cityscapes, Pascal VOC, ADE20K
PROTOCOLS = {
    19: Protocol("slide", (713, 713), 2048, flip=True),
    21: Protocol("slide", (473, 473), 512, flip=True),
    150: Protocol("slide", (473, 473), 512, flip=True),
}


def recognise(content: Content) -> bool:
    return {"layer0.0.weight", "ppm.features.0.1.weight", "cls.4.weight"} <= content.tensors.keys()


def convert(
    content: Content, output_stride: int | None = None, bins: Sequence[int] | None = None
) -> Converted:
    """output_stride: 8, as there. bins: its PSPNet's, (1, 2, 3, 6)."""
    weights = content.tensors
    units = len({name.split(".")[1] for name in weights if name.startswith("layer3.")})
    if units not in BOTTLENECK_RESNETS:
        raise content.error(f"a ResNet with {units} units in layer3 is not among {BOTTLENECK_RESNETS}")
    table: Table = {f"layer{i}": f"backbone.layer{i}" for i in range(1, 5)}
    table |= {f"layer0.{i}": f"backbone.{ours}" for i, ours in enumerate(STEM) if ours}
    for level in range(len(BINS)):
        table[f"ppm.features.{level}.1"] = f"pyramid.levels.{level}.0"
        table[f"ppm.features.{level}.2"] = f"pyramid.levels.{level}.1"
    table |= {"cls": "head", "aux": "aux"}
    classes = len(weights["cls.4.weight"])
    options = OPTIONS | {
        "aux": "aux.4.weight" in weights,
        "bins": numbers_of(content, "bins", bins, BINS),
    }
    config = ModelConfig("pspnet", BOTTLENECK_RESNETS[units], classes, output_stride or 8, options=options)
    return Converted(
        config,
        rename(weights, table),
        labels=labels_for(classes),
        protocol=PROTOCOLS.get(classes, Protocol()),
        notes=assumed(config, output_stride=output_stride, bins=bins),
    )


SOURCE = Source("hszhao/semseg: PSPNet", recognise, convert)
