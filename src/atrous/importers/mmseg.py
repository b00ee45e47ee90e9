"""mmsegmentation's DeepLab v3, v3+ and PSPNet, on ResNets (v1c with the deep stem, and plain) and MobileNetV2.

Heads of 512 channels, a 3x3 convolution behind the branches, an auxiliary FCN head on block 3. Image pooling is the
first of its branches and the last of ours. "D8": the first unit of a dilated block keeps the old rate; in MobileNetV2
the first block of a row alone is dilated. "D16-MG124": rates 1, 2, 4 in block 4, not times 2.
Its checkpoints tell class names, colours and the training's settings, which the network and the normalisation of
pictures follow (mmseg_settings.py).
https://github.com/open-mmlab/mmsegmentation
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from atrous.backbones.mobilenet_v2 import BLOCKS
from atrous.backbones.resnet import BOTTLENECK_RESNETS
from atrous.config import ModelConfig, Protocol
from atrous.data.labels import Labels, voc_palette
from atrous.importers.convert import Converted, Source, assumed, numbers_of, take_epsilon
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.mmseg_settings import (
    HEAD_SETTINGS,
    RESNETS,
    Settings,
    check,
    epsilon,
    mobilenet_stride,
    normalization,
    numbers,
    part,
    read_settings,
    resnet_rates,
)
from atrous.importers.names import Table, rename
from atrous.layers import scale_rates
from atrous.models.deeplab_v3 import aspp_rates

STEM = {0: "conv1.0", 1: "conv1.1", 3: "conv1.3", 4: "conv1.4", 6: "conv1.6", 7: "bn1"}
HEAD = "decode_head"
AUX = "auxiliary_head"
FIRST = ("backbone.conv1.weight", "backbone.stem.0.weight", "backbone.conv1.conv.weight")
BACKBONES = ("ResNet", "ResNetV1c", "MobileNetV2")
THRESHOLD = 0.3  # its heads' own, of one class with a sigmoid
RATES = (1, 12, 24, 36)  # what its classes have where its settings say nothing
BINS = (1, 2, 3, 6)


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    branches = {f"{HEAD}.aspp_modules.0.conv.weight", f"{HEAD}.psp_modules.0.1.conv.weight"}
    others = any(name.startswith((f"{HEAD}.lateral_convs.", f"{HEAD}.convs.")) for name in names)  # UPerNet
    return (
        {f"{HEAD}.conv_seg.weight", f"{HEAD}.bottleneck.conv.weight"} <= names
        and bool(branches & names)
        and not others
    )


def convert(
    content: Content,
    output_stride: int | None = None,
    align_corners: bool | None = None,
    atrous_rates: Sequence[int] | None = None,
    bins: Sequence[int] | None = None,
) -> Converted:
    """All default to what the file's settings say, and where it has none to 8, False, (12, 24, 36) and (1, 2, 3, 6).

    align_corners: True in its 769x769 configs. output_stride: 16 is D16-MG124, with rates (6, 12, 18), where the file
    has no settings; otherwise the network of its settings, with all rates in proportion.
    """
    weights = dict(content.tensors)
    settings = read_settings(content)
    of_backbone, head = (part(settings, "model", name) for name in ("backbone", HEAD))
    check(content, head, HEAD_SETTINGS)
    backbone, table, own_stride, options = _backbone(content, of_backbone, output_stride)
    stride = output_stride or own_stride
    table |= _conv(f"{AUX}.convs.0", "aux") | {f"{AUX}.conv_seg": "aux.4"}
    classes, channels = weights[f"{HEAD}.conv_seg.weight"].shape[:2]
    options |= {
        "align_corners": head.get("align_corners") is True if align_corners is None else align_corners,
        "channels": channels,
        "dropout": 0.1,
        "aux": f"{AUX}.conv_seg.weight" in weights,
    }
    if options["aux"]:
        options["aux_channels"] = weights[f"{AUX}.conv_seg.weight"].shape[1]
    if f"{HEAD}.psp_modules.0.1.conv.weight" in weights:
        model = "pspnet"
        options["bins"] = numbers_of(content, "bins", bins, numbers(content, head, "pool_scales", BINS))
        table |= _conv(f"{HEAD}.bottleneck", "head") | {f"{HEAD}.conv_seg": "head.4"}
        for i in range(len(options["bins"])):
            table |= _conv(f"{HEAD}.psp_modules.{i}.1", f"pyramid.levels.{i}")
    else:
        plus = f"{HEAD}.sep_bottleneck.0.depthwise_conv.conv.weight" in weights
        model, aspp = ("deeplab_v3plus", "aspp") if plus else ("deeplab_v3", "context")
        rates = numbers(content, head, "dilations", RATES if head else (1, *aspp_rates(own_stride)))
        if rates[:1] != (1,) or 1 in rates[1:]:  # a rate of 1 is a 1x1 convolution there
            raise content.error(f"its dilations are {rates}; 1, then larger ones can be built here")
        options |= {"project_kernel": 3, "separable": plus}
        own_rates = scale_rates(rates[1:], own_stride, stride)
        options["atrous_rates"] = numbers_of(content, "atrous_rates", atrous_rates, own_rates)
        table |= _aspp(aspp, plus, len(rates)) | (_decoder() if plus else {})
        table[f"{HEAD}.conv_seg"] = "classifier"
        project = f"{HEAD}.bottleneck.conv.weight"  # its input: image pooling, then the others
        weights[project] = torch.cat([weights[project][:, channels:], weights[project][:, :channels]], dim=1)
    for name, said in (("backbone", of_backbone), (HEAD, head), (AUX, part(settings, "model", AUX))):
        take_epsilon(weights, name, epsilon(content, said))
    first = next(name for name in FIRST if name in weights)
    pixels, bgr = normalization(content, settings, weights[first].shape[1])
    if bgr:
        weights[first] = weights[first].flip(1)
    config = ModelConfig(model, backbone, classes, stride, options=options)
    labels = _labels(content.extras, 2 if classes == 1 else classes)  # it counts the background too
    given: dict[str, Any] = {} if of_backbone else {"output_stride": output_stride}
    given |= {} if head else {"align_corners": align_corners, "atrous_rates": atrous_rates, "bins": bins}
    notes = assumed(config, **given)
    if classes == 1:
        threshold = head.get("threshold", THRESHOLD)
        notes += [f"class 1 begins at a probability of {threshold} there, and at 0.5 here"]
    return Converted(config, rename(weights, table), pixels, labels, _protocol(settings), notes)


def _backbone(
    content: Content, said: Settings, output_stride: int | None
) -> tuple[str, Table, int, dict[str, Any]]:
    """(our name, names, output stride, options). said: its settings; {}: the project's at `output_stride`."""
    weights = content.tensors
    kind = said.get("type", BACKBONES[0])
    if kind not in BACKBONES:
        raise content.error(f"its backbone is {reprlib.repr(kind)}; {', '.join(BACKBONES)} can be built here")
    if "backbone.layer1.0.conv.0.conv.weight" in weights:
        stride = mobilenet_stride(content, said) if said else output_stride or 8
        return "mobilenet_v2", _mobilenet(), stride, {"dilate_from": "only_first"}
    units = [
        len({name.split(".")[2] for name in weights if name.startswith(f"backbone.layer{i}.")})
        for i in range(1, 5)
    ]
    if units[2] not in BOTTLENECK_RESNETS or "backbone.layer1.0.conv3.weight" not in weights:
        raise content.error(
            f"its backbone is not among {', '.join(BOTTLENECK_RESNETS.values())}, mobilenet_v2"
        )
    stride, options = resnet_rates(content, said or RESNETS.get(output_stride or 8, RESNETS[8]), units)
    options["deep_stem"] = False
    table: Table = {"backbone": "backbone"}
    if "backbone.stem.0.weight" in weights:
        options["deep_stem"] = tuple(len(weights[f"backbone.stem.{i}.weight"]) for i in (0, 3, 6))
        table |= {f"backbone.stem.{i}": f"backbone.{ours}" for i, ours in STEM.items()}
    return BOTTLENECK_RESNETS[units[2]], table, stride, options


def _conv(theirs: str, ours: str) -> Table:
    """Its ConvModule: a convolution and a batch norm."""
    return {f"{theirs}.conv": f"{ours}.0", f"{theirs}.bn": f"{ours}.1"}


def _separable(theirs: str, ours: str) -> Table:
    """Depthwise, batch norm, ReLU, then pointwise, batch norm, ReLU."""
    return _conv(f"{theirs}.depthwise_conv", ours) | {
        f"{theirs}.pointwise_conv.conv": f"{ours}.3",
        f"{theirs}.pointwise_conv.bn": f"{ours}.4",
    }


def _aspp(ours: str, separable: bool, branches: int) -> Table:
    table = _conv(f"{HEAD}.bottleneck", f"{ours}.project")
    table |= _conv(f"{HEAD}.image_pool.1", f"{ours}.branches.{branches}.conv")
    table |= _conv(f"{HEAD}.aspp_modules.0", f"{ours}.branches.0")
    branch = _separable if separable else _conv
    for i in range(1, branches):
        table |= branch(f"{HEAD}.aspp_modules.{i}", f"{ours}.branches.{i}")
    return table


def _decoder() -> Table:
    table = _conv(f"{HEAD}.c1_bottleneck", "decoder.reduce")
    for i in range(2):
        table |= _separable(f"{HEAD}.sep_bottleneck.{i}", f"decoder.refine.{i}")
    return table


def _mobilenet() -> Table:
    """Rows of inverted residuals, each with its own count of blocks; ours are in one row."""
    table = _conv("backbone.conv1", "backbone.features.0")
    feature = 0
    for row, (expansion, _, blocks, _) in enumerate(BLOCKS, 1):
        for i in range(blocks):
            feature += 1
            theirs, ours = f"backbone.layer{row}.{i}.conv", f"backbone.features.{feature}.conv"
            last = 1 if expansion == 1 else 2
            for k in range(last):
                table |= _conv(f"{theirs}.{k}", f"{ours}.{k}")
            table |= {f"{theirs}.{last}.conv": f"{ours}.{last}", f"{theirs}.{last}.bn": f"{ours}.{last + 1}"}
    return table


def _meta(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = extras.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _protocol(settings: Settings) -> Protocol:
    """Its 769x769 configs move windows; the others take a picture whole."""
    said = part(settings, "model", "test_cfg") or part(settings, "test_cfg")
    match said.get("mode"), said.get("crop_size"):
        case "slide", (int() as height, int() as width) if 0 < height < 10**5 and 0 < width < 10**5:
            return Protocol("slide", (height, width))
    return Protocol()


def _labels(extras: Mapping[str, Any], classes: int) -> Labels | None:
    """Class names and colours as the file has them; those of the data set with this many classes otherwise."""
    meta = _meta(extras)
    data = meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else {}
    names = data.get("classes", meta.get("CLASSES"))
    colours = data.get("palette", meta.get("PALETTE"))
    if not isinstance(names, (list, tuple)) or len(names) != classes:
        return labels_for(classes)
    try:
        palette = tuple((int(r), int(g), int(b)) for r, g, b in colours)
    except (TypeError, ValueError):
        palette = ()
    if len(palette) != classes or not all(0 <= c <= 255 for colour in palette for c in colour):
        palette = voc_palette(classes)
    return Labels.named([str(name) for name in names], palette)


SOURCE = Source("mmsegmentation: DeepLab v3, v3+, PSPNet", recognise, convert)
