"""The networks that turn an image into features, one file per paper; `create_backbone` builds one by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from atrous.backbones import (
    drn,
    legacy_xception,
    mobilenet_edgetpu,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    vgg,
    xception,
)
from atrous.backbones.base import Backbone
from atrous.backbones.timm import TimmBackbone
from atrous.backbones.weights import load_pretrained
from atrous.errors import choose
from atrous.hints import check_value, keyword_arguments

__all__ = ["BACKBONES", "Backbone", "create_backbone", "load_pretrained"]

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "vgg16": vgg.vgg16,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "xception41": xception.xception41,
    "xception65": xception.xception65,
    "xception71": xception.xception71,
    "legacy_xception": legacy_xception.legacy_xception,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3.mobilenet_v3_large,
    "mobilenet_edgetpu": mobilenet_edgetpu.mobilenet_edgetpu,
    "drn_c_26": drn.drn_c_26,
    "drn_c_42": drn.drn_c_42,
    "drn_c_58": drn.drn_c_58,
    "drn_d_22": drn.drn_d_22,
    "drn_d_24": drn.drn_d_24,
    "drn_d_38": drn.drn_d_38,
    "drn_d_54": drn.drn_d_54,
    "drn_d_105": drn.drn_d_105,
}


def create_backbone(
    name: str,
    *,
    output_stride: int = 16,
    in_channels: int = 3,
    pretrained: bool | str | Path | None = None,
    **options: Any,
) -> Backbone:
    """Build a backbone by its name: one of `BACKBONES`, or `timm:<name>` for a model of timm.

    `output_stride` is input size / size of the last features. `pretrained`: "imagenet" or True for published
    weights, or the path of a file (see `weights.load_pretrained`). `options` are those of the network,
    for instance `multi_grid=(1, 2, 4)` of the ResNets.

    Raises InputError for an unknown name or option, a value that is none of an option's, an output stride the
    network cannot have, or weights that do not fit.
    """
    if name.startswith("timm:"):
        timm_name = name.removeprefix("timm:")
        return TimmBackbone(
            timm_name, output_stride=output_stride, in_channels=in_channels, pretrained=pretrained, **options
        )
    builder = BACKBONES[choose("backbone", name, [*BACKBONES, "timm:<name>"])]
    known = keyword_arguments(builder)
    for option, value in options.items():
        check_value(option, value, known[choose(f"option of {name}", option, known)])
    backbone = builder(output_stride=output_stride, in_channels=in_channels, **options)
    if pretrained:
        load_pretrained(backbone, pretrained, name=name)
    return backbone
