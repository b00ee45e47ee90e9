"""PaddleSeg: DeepLabV3, DeepLabV3P and PSPNet on ResNet50_vd and ResNet101_vd, DeepLabV3P also on Xception41 and 65.

Its own: a stem of 32, 32, 64 channels, a 2x2 average pool in the shortcuts that have a stride, convolutions with a bias
before batch norm (taken into its running mean here), no ReLU inside separable convolutions, the levels of the pyramid
pooling from the finest to the coarsest, and 1024 channels behind it. Its Xception keeps output stride 16 whatever it is
asked for, and its low-level features are those behind the first block. Pictures are (x / 255 - 0.5) / 0.5.
https://github.com/PaddlePaddle/PaddleSeg/tree/develop/paddleseg/models
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from atrous.backbones.resnet import CHANNELS
from atrous.config import ModelConfig, Normalization
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, rename
from atrous.models.deeplab_v3 import aspp_rates

NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DEPTHS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}
RESNET_VD = {"deep_stem": (32, 32, 64), "average_shortcut": True, "dilate_from": "first"}
CLASSIFIERS = {"head.decoder.conv": "deeplab_v3plus", "head.cls": "deeplab_v3", "head.conv": "pspnet"}
XCEPTIONS = {"xception_41": 8, "xception_65": 16}  # blocks of the middle flow
XCEPTION = {"features": "before", "relu_features": False}
NORM = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return content.kind == "paddle" and any(f"{c}.weight" in names for c in CLASSIFIERS)


def convert(
    content: Content,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    align_corners: bool | None = None,
    atrous_rates: Sequence[int] | None = None,
) -> Converted:
    """output_stride: 8, or 16; None: 8, with Xception 16. multi_grid: None: (1, 2, 4), in PSPNet (1,). align_corners:
    True where its configuration says so, as for 769x769. atrous_rates: of the ASPP; None: (12, 24, 36) at 8, and in
    proportion.
    """
    weights = dict(content.tensors)
    last = next((c for c in CLASSIFIERS if f"{c}.weight" in weights), None)
    if last is None:
        raise content.error(f"none of its models that are known: {', '.join(CLASSIFIERS.values())}")
    model = CLASSIFIERS[last]
    units = tuple(
        len({n.split(".")[1] for n in weights if n.startswith(f"backbone.bb_{s}_")}) for s in range(4)
    )
    options: dict[str, Any]
    xception = next((name for name in XCEPTIONS if any(_in_block(n, name) for n in weights)), None)
    table: Table = {"head.auxlayer.conv": "aux.4", last: "head.4" if model == "pspnet" else "classifier"}
    layers: dict[str, tuple[str, str]] = {}  # their convolution and batch norm -> ours
    if xception and model == "deeplab_v3plus":
        backbone, options = xception.replace("_", ""), dict(XCEPTION)
        stride = output_stride or 16
        table |= _xception(xception, XCEPTIONS[xception])
    elif units in DEPTHS and "backbone.bb_0_0.conv2._conv.weight" in weights:
        backbone, options = DEPTHS[units], dict(RESNET_VD)
        options["multi_grid"] = tuple(multi_grid or ((1,) if model == "pspnet" else (1, 2, 4)))
        stride = output_stride or 8
        layers |= _resnet(units)
    else:
        known = ", ".join([*(f"{depth}_vd" for depth in DEPTHS.values()), *XCEPTIONS])
        raise content.error(f"of its backbones, {known} (with DeepLabV3P) are known here")
    options["align_corners"] = align_corners is True
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
        options["atrous_rates"] = numbers_of(content, "atrous_rates", atrous_rates, aspp_rates(stride))
        separable = "head.aspp.aspp_blocks.1.depthwise_conv._conv.weight" in weights
        options["separable"] = "linear" if separable else False
        branches = len({n.split(".")[3] for n in weights if n.startswith("head.aspp.aspp_blocks.")})
        layers |= _deeplab("aspp" if model == "deeplab_v3plus" else "context", branches)
    for theirs, (conv, norm) in layers.items():
        bias = weights.get(f"{theirs}._conv.bias")
        if bias is not None:
            weights[f"{theirs}._batch_norm._mean"] = weights[f"{theirs}._batch_norm._mean"] - bias
            table[f"{theirs}._conv.bias"] = None  # now in the running mean
        table[f"{theirs}._conv.weight"] = f"{conv}.weight"
        table |= {f"{theirs}._batch_norm.{key}": f"{norm}.{value}" for key, value in NORM.items()}
    classes = len(weights[f"{last}.weight"])
    config = ModelConfig(model, backbone, classes, stride, options=options)
    given = {"multi_grid": multi_grid, "align_corners": align_corners, "atrous_rates": atrous_rates}
    notes = assumed(config, output_stride=output_stride, **given)
    return Converted(config, rename(weights, table), NORMALIZATION, labels_for(classes), notes=notes)


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


def _in_block(name: str, xception: str) -> bool:
    return name.startswith(f"backbone.{xception}/middle_flow/block{XCEPTIONS[xception]}.")


def _xception(name: str, middle: int) -> Table:
    """Three separable convolutions in a block: depthwise and 1x1, each with its batch norm."""
    table: Table = {}
    for i in range(2):
        table |= _layer(f"backbone._conv{i + 1}", "", f"backbone.stem.{i}.conv", f"backbone.stem.{i}.bn")
    blocks = [f"{name}/entry_flow/block{i + 1}" for i in range(3)]
    blocks += [f"{name}/middle_flow/block{i + 1}" for i in range(middle)]
    for i, block in enumerate([*blocks, "_exit_flow_1", "_exit_flow_2"]):
        theirs, ours = f"backbone.{block}", f"backbone.blocks.{i}"
        for k in (1, 2, 3):
            conv = f"{ours}.stack.conv{k}"
            table |= _layer(f"{theirs}._conv{k}", "1", f"{conv}.conv_dw", f"{conv}.bn_dw")
            table |= _layer(f"{theirs}._conv{k}", "2", f"{conv}.conv_pw", f"{conv}.bn_pw")
        table |= _layer(f"{theirs}._short", "", f"{ours}.shortcut.conv", f"{ours}.shortcut.bn")
    return table


def _layer(theirs: str, number: str, conv: str, norm: str) -> Table:
    table: Table = {f"{theirs}._conv{number}.weight": f"{conv}.weight"}
    return table | {f"{theirs}._bn{number}.{key}": f"{norm}.{value}" for key, value in NORM.items()}


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


SOURCE = Source("PaddleSeg: DeepLabV3, DeepLabV3P, PSPNet on ResNet_vd, Xception", recognise, convert)
