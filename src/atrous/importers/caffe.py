"""The authors' own DeepLab files for Caffe: v1 LargeFOV, also with MSc; v2 on VGG-16 (ASPP-L, ASPP-S) and ResNet-101.

Caffe's habits: pools round sizes up, a bottleneck has its stride on the first 1x1, Interp layers align corners, batch
norm is a BatchNorm layer (whose sums are divided by its third blob) and a Scale layer. Pictures are BGR, 0..255, minus
the mean. The ResNet file keeps the shared weights of the other two scales too, as *_res05 and *_res075.
http://liangchiehchen.com/projects/DeepLab_Models.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from atrous.backbones.vgg import BLOCKS
from atrous.config import ModelConfig, Normalization
from atrous.importers.convert import Converted, Source, assumed
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import Table, rename
from atrous.models.deeplab_v1 import MULTI_SCALE_CHANNELS

MEAN_RGB = (122.675, 116.669, 104.008)
NORMALIZATION = Normalization(tuple(m / 255 for m in MEAN_RGB), (1 / 255, 1 / 255, 1 / 255))
CAFFE: dict[str, Any] = {"ceil_mode": True, "align_corners": True}
FIRST = {"vgg16": "conv1_1", "resnet101": "conv1"}  # the convolution that reads the picture
MSC_INPUTS = (3, 64, 128, 256, 512)  # channels of the picture and of pool1 .. pool4
UNITS = (3, 4, 23, 3)  # ResNet-101: res2 .. res5
OTHER_SCALE = re.compile(r"_res0(5|75)(_|\.|$)")


def recognise(content: Content) -> bool:
    weights = content.tensors
    vgg = "conv5_3.0" in weights and any(re.match(r"fc8_.*\.0$", name) for name in weights)
    resnet = "res5c_branch2c.0" in weights and bool(_classifiers(weights, "fc1_"))
    return content.kind == "caffe" and (vgg or resnet)


def convert(content: Content, head: str | None = None, msc: bool | None = None) -> Converted:
    """head: of v2 with four branches, "aspp_l" or "aspp_s". msc: v1's features of several scales, v2's three scales of
    the picture; None: as the file has them.
    """
    weights = dict(content.tensors)
    backbone = "vgg16" if "conv5_3.0" in weights else "resnet101"
    last = _classifiers(weights, "fc8_" if backbone == "vgg16" else "fc1_")
    shallow = _shallow_branches(weights) if backbone == "vgg16" else []
    last = [layer for layer in last if layer not in (names[-1] for names in shallow)]
    branches = len(last)
    if branches not in (1, 4):
        raise content.error(f"{branches} layers of scores ({', '.join(last)}), where DeepLab has 1 or 4")
    if backbone == "vgg16" and branches == 1:
        name, options, table = "deeplab_v1", dict(CAFFE), _vgg() | _fc("head", "", last[0])
        if tuple(weights["fc6.0"].shape[2:]) != (3, 3):
            raise content.error("of v1, LargeFOV alone is known here: its fc6 is 3x3")
        options["msc"] = bool(shallow) if msc is None else msc
        for i, names in enumerate(shallow):
            for layer, part in zip(names, ("conv1", "conv2", "fc8"), strict=True):
                table |= _conv(layer, f"scale_branches.{i}.{part}")
    else:
        name = "deeplab_v2"
        options = CAFFE | {"head": "large_fov" if branches == 1 else head or "aspp_l"}
        if backbone == "vgg16":
            table = _vgg()
            for i, layer in enumerate(last):
                table |= _fc(f"branches.{i}", f"_{i + 1}", layer)
        else:
            options |= {"stride_on_first_1x1": True}
            table = _resnet()
            for i, layer in enumerate(last):
                table |= _conv(layer, f"branches.{i}")
            _divide_statistics(weights)
        options["msc"] = any(OTHER_SCALE.search(key) for key in weights) if msc is None else msc
    # the weights of the other scales are those of the first
    table |= dict.fromkeys(key for key in weights if OTHER_SCALE.search(key))
    for layer in (FIRST[backbone], *(names[0] for names in shallow[:1])):  # that read the picture
        weights[f"{layer}.0"] = weights[f"{layer}.0"].flip(1)  # BGR to RGB
    weights = {
        key: value.flatten() if value.shape[:-1] == (1, 1, 1) else value for key, value in weights.items()
    }
    classes = len(weights[f"{last[0]}.0"])
    config = ModelConfig(name, backbone, classes, 8, options=options)
    notes = assumed(config, head=head) if branches == 4 else []
    return Converted(config, rename(weights, table), NORMALIZATION, labels_for(classes), notes=notes)


def _classifiers(weights: Mapping[str, Tensor], prefix: str) -> list[str]:
    """The layers that end in scores, in the order of their names."""
    names = (key.removesuffix(".0") for key in weights if key.startswith(prefix) and key.endswith(".0"))
    return sorted(name for name in names if not OTHER_SCALE.search(name))


def _shallow_branches(weights: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """The layers of v1's MSc: of the picture and of pool1 .. pool4 a 3x3, a 1x1 and the scores; [] where it has none.

    They are told by their shapes, and each kind stands in the order of the branches.
    """
    known = _vgg().keys()
    kinds: dict[tuple[int, ...], list[str]] = {}
    channels = []
    for key, value in weights.items():
        if key in known or not key.endswith(".0") or value.ndim != 4:
            continue
        out, into, *kernel = value.shape
        if out == MULTI_SCALE_CHANNELS and kernel == [3, 3]:
            channels.append(into)
            kinds.setdefault((3,), []).append(key.removesuffix(".0"))
        elif into == MULTI_SCALE_CHANNELS and kernel == [1, 1]:
            kinds.setdefault((1, out == MULTI_SCALE_CHANNELS), []).append(key.removesuffix(".0"))
    if channels != list(MSC_INPUTS) or {len(layers) for layers in kinds.values()} != {len(MSC_INPUTS)}:
        return []
    return list(zip(kinds[3,], kinds[1, True], kinds[1, False], strict=True))


def _divide_statistics(weights: dict[str, Tensor]) -> None:
    """BatchNorm keeps sums, and in its third blob what to divide them by."""
    for name in [key.removesuffix(".2") for key in weights if key.startswith("bn") and key.endswith(".2")]:
        count = float(weights[f"{name}.2"].flatten()[0])
        for i in (0, 1):
            weights[f"{name}.{i}"] = weights[f"{name}.{i}"] * (0.0 if count == 0 else 1 / count)


def _conv(layer: str, ours: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{layer}.0", f"{ours}.weight"), (f"{layer}.1", f"{ours}.bias"))


def _norm(layer: str, ours: str) -> Table:
    """bn2a_branch2a and scale2a_branch2a for layer 2a_branch2a."""
    return {
        f"bn{layer}.0": f"{ours}.running_mean",
        f"bn{layer}.1": f"{ours}.running_var",
        f"bn{layer}.2": None,  # the divisor of the two
        f"scale{layer}.0": f"{ours}.weight",
        f"scale{layer}.1": f"{ours}.bias",
    }


def _vgg() -> Table:
    table: Table = {}
    index = 0
    for block, (convolutions, _) in enumerate(BLOCKS, 1):
        for i in range(1, convolutions + 1):
            table |= _conv(f"conv{block}_{i}", f"backbone.features.{index}")
            index += 2  # and its ReLU
        index += 1  # pool
    return table


def _fc(ours: str, suffix: str, last: str) -> Table:
    layers = {f"fc6{suffix}": "fc6", f"fc7{suffix}": "fc7", last: "fc8"}
    return {key: name for layer, fc in layers.items() for key, name in _conv(layer, f"{ours}.{fc}")}


def _resnet() -> Table:
    table = _norm("_conv1", "backbone.bn1")
    table |= _conv("conv1", "backbone.conv1")
    for block, units in enumerate(UNITS, 1):
        letters = "abc" if units == 3 else ["a", *(f"b{i}" for i in range(1, units))]
        for i, letter in enumerate(letters):
            unit, ours = f"{block + 1}{letter}", f"backbone.layer{block}.{i}"
            for k, branch in enumerate("abc", 1):
                table |= _conv(f"res{unit}_branch2{branch}", f"{ours}.conv{k}")
                table |= _norm(f"{unit}_branch2{branch}", f"{ours}.bn{k}")
            if i == 0:
                table |= _conv(f"res{unit}_branch1", f"{ours}.downsample.0")
                table |= _norm(f"{unit}_branch1", f"{ours}.downsample.1")
    return table


SOURCE = Source("the authors' Caffe: DeepLab v1 (VGG-16), v2 (VGG-16, ResNet-101)", recognise, convert)
