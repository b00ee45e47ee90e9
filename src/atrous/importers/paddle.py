"""PaddleSeg: DeepLabV3, DeepLabV3P and PSPNet on ResNet50_vd and ResNet101_vd.

Its own: a stem of 32, 32, 64 channels, a 2x2 average pool in the shortcuts that have a stride, convolutions with a bias
before batch norm (taken into its running mean here), no ReLU inside separable convolutions, the levels of the pyramid
pooling from the finest to the coarsest, and 1024 channels behind it. Pictures are (x / 255 - 0.5) / 0.5.
https://github.com/PaddlePaddle/PaddleSeg/tree/develop/paddleseg/models
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from atrous.backbones.resnet import CHANNELS
from atrous.config import ModelConfig, Normalization
from atrous.importers.convert import Converted, Source
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, rename

NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DEPTHS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}
RESNET_VD = {"deep_stem": (32, 32, 64), "average_shortcut": True, "dilate_from": "first"}
CLASSIFIERS = {"head.decoder.conv": "deeplab_v3plus", "head.cls": "deeplab_v3", "head.conv": "pspnet"}
NORM = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return content.kind == "paddle" and any(f"{c}.weight" in names for c in CLASSIFIERS)


def convert(
    content: Content,
    output_stride: int = 8,
    multi_grid: Sequence[int] | None = None,
    align_corners: bool = False,
    atrous_rates: Sequence[int] | None = None,
) -> Converted:
    """output_stride: 8, or 16. multi_grid: None: (1, 2, 4), in PSPNet (1,). align_corners: True where its
    configuration says so, as for 769x769. atrous_rates: of the ASPP; None: (12, 24, 36) at 8, and in proportion.
    """
    weights = dict(content.tensors)
    last = next(c for c in CLASSIFIERS if f"{c}.weight" in weights)
    model = CLASSIFIERS[last]
    units = tuple(
        len({n.split(".")[1] for n in weights if n.startswith(f"backbone.bb_{s}_")}) for s in range(4)
    )
    if units not in DEPTHS or "backbone.bb_0_0.conv2._conv.weight" not in weights:
        raise content.error(
            f"of its backbones, {', '.join(f'{d}_vd' for d in DEPTHS.values())} are known here"
        )
    options: dict[str, Any] = RESNET_VD | {"align_corners": align_corners}
    options["multi_grid"] = tuple(multi_grid or ((1,) if model == "pspnet" else (1, 2, 4)))
    layers = _resnet(units)  # their convolution and batch norm -> ours
    if model == "pspnet":
        joined = weights["head.psp_module.conv_bn_relu2._conv.weight"]
        options |= {"aux": "head.auxlayer.conv.weight" in weights, "head_channels": len(joined)}
        layers |= _pspnet()
        features = CHANNELS[-1] * 4
        levels = joined[:, features:].chunk(4, dim=1)  # theirs begin with the finest
        weights["head.psp_module.conv_bn_relu2._conv.weight"] = torch.cat(
            [joined[:, :features], *levels[::-1]], 1
        )
    else:
        if atrous_rates is not None:
            options["atrous_rates"] = tuple(atrous_rates)
        separable = "head.aspp.aspp_blocks.1.depthwise_conv._conv.weight" in weights
        options["separable"] = "linear" if separable else False
        branches = len({n.split(".")[3] for n in weights if n.startswith("head.aspp.aspp_blocks.")})
        layers |= _deeplab("aspp" if model == "deeplab_v3plus" else "context", branches)
    table: Table = {"head.auxlayer.conv": "aux.4", last: "head.4" if model == "pspnet" else "classifier"}
    for theirs, (conv, norm) in layers.items():
        bias = weights.get(f"{theirs}._conv.bias")
        if bias is not None:
            weights[f"{theirs}._batch_norm._mean"] = weights[f"{theirs}._batch_norm._mean"] - bias
            table[f"{theirs}._conv.bias"] = None  # now in the running mean
        table[f"{theirs}._conv.weight"] = f"{conv}.weight"
        table |= {f"{theirs}._batch_norm.{key}": f"{norm}.{value}" for key, value in NORM.items()}
    classes = len(weights[f"{last}.weight"])
    config = ModelConfig(model, DEPTHS[units], classes, output_stride, options=options)
    return Converted(config, rename(weights, table), NORMALIZATION, labels_for(classes))


def _pair(ours: str) -> tuple[str, str]:
    return f"{ours}.0", f"{ours}.1"


def _resnet(units: Sequence[int]) -> dict[str, tuple[str, str]]:
    stem = {1: ("conv1.0", "conv1.1"), 2: ("conv1.3", "conv1.4"), 3: ("conv1.6", "bn1")}
    layers = {f"backbone.conv1_{i}": (f"backbone.{c}", f"backbone.{n}") for i, (c, n) in stem.items()}
    for stage, count in enumerate(units):
        for unit in range(count):
            theirs, ours = f"backbone.bb_{stage}_{unit}", f"backbone.layer{stage + 1}.{unit}"
            layers |= {f"{theirs}.conv{i}": (f"{ours}.conv{i + 1}", f"{ours}.bn{i + 1}") for i in range(3)}
        layers[f"backbone.bb_{stage}_0.short"] = _pair(f"backbone.layer{stage + 1}.0.downsample")
    return layers


def _pspnet() -> dict[str, tuple[str, str]]:
    layers = {f"head.psp_module.stages.{i}.1": _pair(f"pyramid.levels.{i}") for i in range(4)}
    return layers | {
        "head.psp_module.conv_bn_relu2": _pair("head"),
        "head.auxlayer.conv_bn_relu": _pair("aux"),
    }


def _deeplab(context: str, branches: int) -> dict[str, tuple[str, str]]:
    layers = {"head.aspp.aspp_blocks.0": _pair(f"{context}.branches.0")}
    for i in range(1, branches):
        layers |= _conv(f"head.aspp.aspp_blocks.{i}", f"{context}.branches.{i}")
    layers["head.aspp.global_avg_pool.1"] = _pair(f"{context}.branches.{branches}.conv")
    layers["head.aspp.conv_bn_relu"] = _pair(f"{context}.project")
    layers["head.decoder.conv_bn_relu1"] = _pair("decoder.reduce")
    for i in (0, 1):
        layers |= _conv(f"head.decoder.conv_bn_relu{i + 2}", f"decoder.refine.{i}")
    return layers


def _conv(theirs: str, ours: str) -> dict[str, tuple[str, str]]:
    """A convolution, plain or separable."""
    return {
        theirs: _pair(ours),
        f"{theirs}.depthwise_conv": _pair(ours),
        f"{theirs}.piontwise_conv": (f"{ours}.2", f"{ours}.3"),
    }


SOURCE = Source("PaddleSeg: DeepLabV3, DeepLabV3P, PSPNet on ResNet_vd", recognise, convert)
