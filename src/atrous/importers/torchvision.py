"""torchvision's DeepLab v3: deeplabv3_resnet50, deeplabv3_resnet101, deeplabv3_mobilenet_v3_large.

Its own form of v3: a 3x3 convolution behind the ASPP, dropout 0.5, rates (12, 24, 36) at every output stride, an
auxiliary FCN head, and in the ResNets the first unit of a dilated block at the old rate.
https://github.com/pytorch/vision/tree/main/torchvision/models/segmentation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig
from atrous.data.labels import VOC
from atrous.errors import InputError
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.names import Table, rename

HEAD: Table = {
    "classifier.0.convs": "context.branches",
    "classifier.0.convs.4.1": "context.branches.4.conv.0",
    "classifier.0.convs.4.2": "context.branches.4.conv.1",
    "classifier.0.project": "context.project",
    "classifier.1": "extra_conv.0",
    "classifier.2": "extra_conv.1",
    "classifier.4": "classifier",
    "aux_classifier": "aux",
}
OPTIONS: dict[str, Any] = {"extra_conv": True, "dropout": 0.5, "atrous_rates": (12, 24, 36)}
RESNET: dict[str, Any] = {"multi_grid": (1,), "dilate_from": "second"}
MOBILENET: dict[str, Any] = {"aux_stage": 2, "stage_features": "first"}


def recognise(content: Content) -> bool:
    return {"classifier.0.convs.0.0.weight", "classifier.4.weight"} <= content.tensors.keys()


def table(weights: Mapping[str, Tensor]) -> Table:
    """Its names -> ours, for the backbone that `weights` have."""
    resnet = any(name.startswith("backbone.layer1.") for name in weights)
    return HEAD | {"backbone": "backbone" if resnet else "backbone.features"}


def fitting(config: ModelConfig) -> tuple[ModelConfig, Table]:
    """The model there that is nearest to one of ours, in our options, and its names -> ours."""
    backbones = (*BOTTLENECK_RESNETS.values(), "mobilenet_v3_large")
    if config.name != "deeplab_v3" or config.backbone not in backbones:
        raise InputError(
            f"{config.name} on {config.backbone} has no place in torchvision: "
            f"it has deeplab_v3 on {', '.join(backbones)}"
        )
    resnet = config.backbone in BOTTLENECK_RESNETS.values()
    stride, options = (8, RESNET) if resnet else (16, MOBILENET)
    aux = {"aux": config.options.get("aux", False)}
    wanted = ModelConfig(
        config.name, config.backbone, config.num_classes, stride, options=OPTIONS | options | aux
    )
    return wanted, HEAD | {"backbone": "backbone" if resnet else "backbone.features"}


def convert(
    content: Content, output_stride: int | None = None, atrous_rates: Sequence[int] | None = None
) -> Converted:
    """output_stride: 8 for the ResNets, 16 for MobileNetV3, as there. atrous_rates: its DeepLabHead's, (12, 24, 36)."""
    weights = content.tensors
    aux = any(name.startswith("aux_classifier.") for name in weights)
    units = len({name.split(".")[2] for name in weights if name.startswith("backbone.layer3.")})
    if units:
        backbone = BOTTLENECK_RESNETS.get(units)
        if backbone is None:
            raise content.error(f"a ResNet with {units} units in layer3 is not among {BOTTLENECK_RESNETS}")
        stride = output_stride or 8
        options = RESNET | {"aux": aux}
    else:
        backbone, stride, options = "mobilenet_v3_large", output_stride or 16, MOBILENET | {"aux": aux}
    rates = numbers_of(content, "atrous_rates", atrous_rates, OPTIONS["atrous_rates"])
    classes = len(weights["classifier.4.weight"])
    options = OPTIONS | options | {"atrous_rates": rates}
    config = ModelConfig("deeplab_v3", backbone, classes, stride, options=options)
    return Converted(
        config,
        rename(weights, table(weights)),
        labels=VOC if classes == len(VOC) else None,
        notes=assumed(config, output_stride=output_stride, atrous_rates=atrous_rates),
    )


SOURCE = Source("torchvision.models.segmentation.deeplabv3_*", recognise, convert)
