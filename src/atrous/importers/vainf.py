"""DeepLab v3 and v3+ of github.com/VainF/DeepLabV3Plus-Pytorch, on ResNet, MobileNetV2 and Xception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig
from atrous.importers import torchvision
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, rename
from atrous.models.deeplab_v3 import aspp_rates

V3: Table = {
    f"classifier.{name}": ours for name, ours in torchvision.HEAD.items() if name != "aux_classifier"
}
V3PLUS: Table = {
    "classifier.project": "decoder.reduce",
    "classifier.aspp.convs": "aspp.branches",
    "classifier.aspp.convs.4.1": "aspp.branches.4.conv.0",
    "classifier.aspp.convs.4.2": "aspp.branches.4.conv.1",
    "classifier.aspp.project": "aspp.project",
    "classifier.classifier.0": "decoder.refine.0.0",
    "classifier.classifier.1": "decoder.refine.0.1",
    "classifier.classifier.3": "classifier",
}
# with --separable_conv: convert_to_separable_conv puts a pair "body" in the place of every 3x3 of the head
SEPARABLE: Table = {
    "classifier.classifier.0.body": "decoder.refine.0",
    "classifier.classifier.1": "decoder.refine.0.2",
}
for _i in (1, 2, 3):
    SEPARABLE[f"classifier.aspp.convs.{_i}.0.body"] = f"aspp.branches.{_i}"
    SEPARABLE[f"classifier.aspp.convs.{_i}.1"] = f"aspp.branches.{_i}.2"
BACKBONE: Table = {
    "backbone": "backbone",
    "backbone.low_level_features": "backbone.features",  # MobileNetV2
    "backbone.high_level_features": "backbone.features",
}
RESNET = {"multi_grid": (1,), "dilate_from": "second"}
MOBILENET = {"dilate_from": "second", "pad_input": True, "pad_stem": False}
XCEPTION = {
    "dilate_from": "first",
    "relu_features": False,
    "pad_stem": False,
    "pad_exit": 1,
    "last_bn": False,
}
LOW_LEVEL_CHANNELS = 48


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    v3plus = {
        "classifier.aspp.convs.0.0.weight",
        "classifier.project.0.weight",
        "classifier.classifier.3.weight",
    }
    return v3plus <= names or "classifier.classifier.0.convs.0.0.weight" in names


def find_backbone(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """(our name, options) of the backbone with these weights; ValueError for one that is not here."""
    if "backbone.transition1.0.0.weight" in weights:
        raise ValueError("its backbone is an HRNet, which is not here: ResNet, MobileNetV2 and Xception are")
    if "backbone.low_level_features.0.0.weight" in weights:
        return "mobilenet_v2", MOBILENET
    if "backbone.conv3.pointwise.weight" in weights:
        return "legacy_xception", XCEPTION
    units = len({name.split(".")[2] for name in weights if name.startswith("backbone.layer3.")})
    if units not in BOTTLENECK_RESNETS:
        raise ValueError(f"a ResNet with {units} units in layer3 is not among {BOTTLENECK_RESNETS}")
    return BOTTLENECK_RESNETS[units], RESNET


def convert(
    content: Content, output_stride: int | None = None, atrous_rates: Sequence[int] | None = None
) -> Converted:
    """output_stride: 16, as its main.py, or 8. atrous_rates: (6, 12, 18) at 16, doubled at 8."""
    weights = content.tensors
    backbone, options = find_backbone(weights)
    if "classifier.classifier.0.convs.1.0.body.0.weight" in weights:
        raise content.error("its DeepLab v3 with --separable_conv is not known here; v3+ with it is")
    if "classifier.classifier.4.weight" in weights:
        model, last, table = "deeplab_v3", "classifier.classifier.4.weight", V3
        options = options | {"extra_conv": True}
    else:
        model, last, table = "deeplab_v3plus", "classifier.classifier.3.weight", V3PLUS
        separable = "classifier.classifier.0.body.0.weight" in weights
        options = options | {"decoder_convs": 1, "separable": "plain" if separable else False}
        table = table | SEPARABLE if separable else table
    renamed = rename(weights, table | BACKBONE)
    if model == "deeplab_v3plus":
        first = "decoder.refine.0.0.weight"  # a depthwise convolution has its channels on axis 0
        joined = {first: 0, "decoder.refine.0.1.weight": 1} if options["separable"] else {first: 1}
        for name, axis in joined.items():
            renamed.weights[name] = encoder_first(renamed.weights[name], axis)
    stride = output_stride or 16
    rates = numbers_of(content, "atrous_rates", atrous_rates, aspp_rates(stride))
    classes = len(weights[last])
    config = ModelConfig(model, backbone, classes, stride, options=options | {"atrous_rates": rates})
    notes = assumed(config, output_stride=output_stride, atrous_rates=atrous_rates)
    return Converted(config, renamed, labels=labels_for(classes), notes=notes)


def encoder_first(weight: Tensor, axis: int) -> Tensor:
    """Its decoder joins low-level features and encoder, ours encoder and low-level features."""
    low, encoder = weight.tensor_split([LOW_LEVEL_CHANNELS], dim=axis)
    return torch.cat([encoder, low], dim=axis)


SOURCE = Source("VainF/DeepLabV3Plus-Pytorch: DeepLab v3 and v3+", recognise, convert)
