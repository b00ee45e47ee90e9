"""Google's DeepLab in TensorFlow: v3 and v3+ on MobileNetV2, Xception-41, 65, 71 and ResNet-v1-50, 101 (beta too).

Checkpoints and frozen graphs of tensorflow/models, research/deeplab. What it does its own way: resizes align corners,
MobileNet and the ResNets' pool pad as TensorFlow's "SAME", batch norms of MobileNet and Xception have eps 1e-3, a
ResNet's block has its stride in the last unit, low-level features are taken before the ReLU (and in the ResNets before
the sum), image pooling is the first branch of the ASPP, and pictures are -1..1 (plain ResNets: minus the mean).
https://github.com/tensorflow/models/tree/master/research/deeplab
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from atrous.backbones.mobilenet_v2 import BLOCKS, STEM_CHANNELS
from atrous.backbones.xception import ENTRY_65, ENTRY_71, EXIT
from atrous.config import ModelConfig, Normalization
from atrous.importers.convert import Converted, Source, assumed, numbers_of
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.names import rename
from atrous.models.deeplab_v3 import aspp_rates

ZERO_MEAN_UNIT_RANGE = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MEAN_RGB = (123.15, 115.90, 103.06)
SUBTRACT_MEAN = Normalization(tuple(m / 255 for m in MEAN_RGB), (1 / 255, 1 / 255, 1 / 255))
VARIABLES = {
    "weights": "conv.weight",
    "depthwise_weights": "conv.weight",
    "biases": "conv.bias",
    "BatchNorm/gamma": "norm.weight",
    "BatchNorm/beta": "norm.bias",
    "BatchNorm/moving_mean": "norm.running_mean",
    "BatchNorm/moving_variance": "norm.running_var",
}
# what the optimizer keeps beside the weights
TRAINING = re.compile(
    r"/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|ExponentialMovingAverage)$|^global_step$|^beta[12]_power$"
)
ASPP_CHANNELS = 256
MOBILENET, LOGITS = "MobilenetV2", "logits/semantic"


class Place(NamedTuple):
    """Our names for one layer of theirs."""

    conv: str
    norm: str = ""


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return (
        content.kind == "tensorflow" and f"{LOGITS}/weights" in names and "concat_projection/weights" in names
    )


def convert(
    content: Content,
    output_stride: int | None = None,
    atrous_rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] | None = None,
) -> Converted:
    """output_stride: 16, or 8. atrous_rates: of the ASPP; None: (6, 12, 18) at 16, and in proportion. multi_grid: of
    a ResNet's last block, (1, 1, 1).
    """
    weights = content.tensors
    network = next(
        iter(re.findall(r"^(MobilenetV2|xception_\d\d|resnet_v1_\d+)/", "\n".join(weights), re.M)), None
    )
    if network is None:
        raise content.error(
            "of its backbones, MobilenetV2, xception_41, 65, 71 and resnet_v1_50, 101 are known here"
        )
    decoder = "decoder/feature_projection0/weights" in weights
    separable = any(
        name.startswith(("aspp1_depthwise/", "decoder/decoder_conv0_depthwise/")) for name in weights
    )
    rates = any(re.match(r"aspp1(_depthwise)?/", name) for name in weights)
    options: dict[str, Any] = {"align_corners": True, "separable": separable}
    stride = output_stride or 16
    own_rates = aspp_rates(stride) if rates else ()
    options["atrous_rates"] = numbers_of(content, "atrous_rates", atrous_rates, own_rates)
    if network == MOBILENET:
        backbone, layers, more = _mobilenet(weights)
        if decoder:
            more["low_level_features"] = "depthwise"
    elif network.startswith("xception"):
        backbone, layers, more = _xception(network)
    else:
        backbone, layers, more = _resnet(network, weights)
        more["multi_grid"] = numbers_of(content, "multi_grid", multi_grid, (1, 1, 1))
    layers |= _head("aspp" if decoder else "context", weights)
    converted, table = {}, dict[str, str | None]()
    for name, tensor in weights.items():
        converted[name], ours = _place(name, tensor, layers)
        if ours != "":
            table[name] = ours
    joined = converted["concat_projection/weights"]
    converted["concat_projection/weights"] = joined.roll(
        -ASPP_CHANNELS, dims=1
    )  # image pooling is our last branch
    classes = len(converted[f"{LOGITS}/weights"])
    name = "deeplab_v3plus" if decoder else "deeplab_v3"
    config = ModelConfig(name, backbone, classes, stride, options=options | more)
    given = {"atrous_rates": atrous_rates if rates else (), "multi_grid": multi_grid}
    notes = assumed(config, output_stride=output_stride, **given)
    normalization = SUBTRACT_MEAN if f"{network}/conv1/weights" in weights else ZERO_MEAN_UNIT_RANGE
    return Converted(config, rename(converted, table), normalization, labels_for(classes), notes=notes)


def _place(name: str, tensor: Tensor, layers: Mapping[str, Place]) -> tuple[Tensor, str | None]:
    """A variable in PyTorch's layout, and our name; None where it is left out, "" where it is unknown."""
    if TRAINING.search(name):
        return tensor, None
    suffix = next((s for s in sorted(VARIABLES, key=len) if name.endswith(f"/{s}")), "")
    if not suffix:  # a constant of a frozen graph
        return tensor, None if tensor.ndim < 4 else ""
    place = layers.get(name.removesuffix(f"/{suffix}"))
    if suffix == "depthwise_weights" and tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 0, 1)
    elif suffix == "weights" and tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1)
    if place is None:
        return tensor, ""
    part, variable = VARIABLES[suffix].split(".")
    return tensor.contiguous(), f"{place.conv if part == 'conv' else place.norm}.{variable}"


def _head(context: str, weights: Mapping[str, Tensor]) -> dict[str, Place]:
    """ASPP, decoder and classifier; separable convolutions are named after their halves."""
    branches = len({n.split("/")[0].split("_")[0] for n in weights if re.match(r"aspp\d", n)})
    layers = {
        "image_pooling": Place(*_pair(f"{context}.branches.{branches}.conv")),
        "concat_projection": Place(*_pair(f"{context}.project")),
        "decoder/feature_projection0": Place(*_pair("decoder.reduce")),
        LOGITS: Place("classifier"),
    }
    for i in range(branches):
        layers |= _conv(f"aspp{i}", f"{context}.branches.{i}")
    for i in range(2):
        layers |= _conv(f"decoder/decoder_conv{i}", f"decoder.refine.{i}")
        layers[f"decoder/decoder_conv0/decoder_conv0_{i + 1}"] = Place(*_pair(f"decoder.refine.{i}"))
    return layers


def _pair(ours: str) -> tuple[str, str]:
    return f"{ours}.0", f"{ours}.1"


def _conv(theirs: str, ours: str) -> dict[str, Place]:
    """A convolution, plain or separable."""
    return {
        theirs: Place(*_pair(ours)),
        f"{theirs}_depthwise": Place(*_pair(ours)),
        f"{theirs}_pointwise": Place(f"{ours}.3", f"{ours}.4"),
    }


def _mobilenet(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Place], dict[str, Any]]:
    width = weights[f"{MOBILENET}/Conv/weights"].shape[-1] / STEM_CHANNELS
    layers = {f"{MOBILENET}/Conv": Place(*_pair("backbone.features.0"))}
    expansions = [t for t, _, n, _ in BLOCKS for _ in range(n)]
    for i, expansion in enumerate(expansions):
        theirs = f"{MOBILENET}/expanded_conv" + (f"_{i}" if i else "")
        ours, at = f"backbone.features.{i + 1}.conv", 0
        if expansion != 1:
            layers[f"{theirs}/expand"] = Place(*_pair(f"{ours}.0"))
            at = 1
        layers[f"{theirs}/depthwise"] = Place(*_pair(f"{ours}.{at}"))
        layers[f"{theirs}/project"] = Place(f"{ours}.{at + 1}", f"{ours}.{at + 2}")
    options: dict[str, Any] = {"padding": "same", "eps": 1e-3}
    if width != 1:
        options |= {"width": width, "divisible_by": 1}
    return "mobilenet_v2", layers, options


def _xception(network: str) -> tuple[str, dict[str, Place], dict[str, Any]]:
    layers = {
        f"{network}/entry_flow/conv1_{i + 1}": Place(f"backbone.stem.{i}.conv", f"backbone.stem.{i}.bn")
        for i in range(2)
    }
    entry = len(ENTRY_71 if network == "xception_71" else ENTRY_65)
    middle = 8 if network == "xception_41" else 16
    units = [f"entry_flow/block{i + 1}/unit_1" for i in range(entry)]
    units += [f"middle_flow/block1/unit_{i + 1}" for i in range(middle)]
    units += [f"exit_flow/block{i + 1}/unit_1" for i in range(len(EXIT))]
    for i, unit in enumerate(units):
        theirs, ours = f"{network}/{unit}/xception_module", f"backbone.blocks.{i}"
        layers[f"{theirs}/shortcut"] = Place(f"{ours}.shortcut.conv", f"{ours}.shortcut.bn")
        for k in range(1, 4):
            conv = f"{ours}.stack.conv{k}"
            layers[f"{theirs}/separable_conv{k}_depthwise"] = Place(f"{conv}.conv_dw", f"{conv}.bn_dw")
            layers[f"{theirs}/separable_conv{k}_pointwise"] = Place(f"{conv}.conv_pw", f"{conv}.bn_pw")
    return network.replace("_", ""), layers, {"relu_features": False, "eps": 1e-3}


def _resnet(network: str, weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Place], dict[str, Any]]:
    deep = f"{network}/conv1_1/weights" in weights  # beta
    stem = {
        "_1": ("conv1.0", "conv1.1"),
        "_2": ("conv1.3", "conv1.4"),
        "_3": ("conv1.6", "bn1"),
        "": ("conv1", "bn1"),
    }
    layers = {f"{network}/conv1{i}": Place(f"backbone.{c}", f"backbone.{n}") for i, (c, n) in stem.items()}
    for block, units in enumerate((3, 4, 23 if network.endswith("101") else 6, 3), 1):
        for unit in range(units):
            theirs = f"{network}/block{block}/unit_{unit + 1}/bottleneck_v1"
            ours = f"backbone.layer{block}.{unit}"
            layers |= {f"{theirs}/conv{k}": Place(f"{ours}.conv{k}", f"{ours}.bn{k}") for k in range(1, 4)}
            layers[f"{theirs}/shortcut"] = Place(*_pair(f"{ours}.downsample"))
    options = {"deep_stem": deep, "stride_at": "last", "dilate_from": "next", "pool_padding": "same"}
    return network.replace("_v1_", ""), layers, options


SOURCE = Source("tensorflow/models research/deeplab: v3, v3+", recognise, convert)
