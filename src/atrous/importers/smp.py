"""segmentation_models.pytorch: DeepLabV3, DeepLabV3Plus and PSPNet, as state dicts or save_pretrained's folders.

Its own forms: rates (12, 24, 36) at every output stride, separable convolutions without batch norm between their
halves, one more 3x3 convolution behind the ASPP, every resize with aligned corners, encoders whose dilated stages have
the new rate from the first unit on and that may end early (encoder_depth; 3 in PSPNet), in MobileNetV2 with the 1x1 to
1280 channels; in PSPNet no batch norm at bin 1 and kernels 1 and 3 in the head, whose dropout is of whole channels
there and of single values here.
Its encoder "xception", the legacy_xception here, cannot dilate: there is a PSPNet on it alone.
https://github.com/qubvel-org/segmentation_models.pytorch
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from atrous.backbones import create_backbone
from atrous.config import ModelConfig
from atrous.errors import InputError
from atrous.importers import xception
from atrous.importers.convert import EPS, Converted, Source, assumed, numbers_of, take_epsilon
from atrous.importers.files import Content
from atrous.importers.imagenet import damaged_backbone, known_backbone
from atrous.importers.names import Renamed, Table, indented, rename
from atrous.importers.timm import check_fits, normalization_of, shapes_of
from atrous.models.deeplab_v3 import aspp_rates

# the weight by which a model is known -> the model
FIRST = {
    "decoder.aspp.convs.0.0.weight": "deeplab_v3",
    "decoder.0.convs.0.0.weight": "deeplab_v3",  # before its version 0.4
    "decoder.aspp.0.convs.0.0.weight": "deeplab_v3plus",
    "decoder.psp.blocks.0.pool.1.0.weight": "pspnet",
}
V3 = ("decoder.aspp", "decoder.conv", "decoder.bn")
OLD_V3 = ("decoder.0", "decoder.1", "decoder.2")
JOINED = "head.0.weight"  # PSPNet: the pyramid comes first there, the features first here
OUTPUT_STRIDE = {"deeplab_v3": 8, "deeplab_v3plus": 16, "pspnet": 32}
DEPTH = {"deeplab_v3": 5, "deeplab_v3plus": 5, "pspnet": 3}
RATES = (12, 24, 36)
ENCODERS = {
    name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2")
} | {"xception": "legacy_xception"}
TIMM_NAMES = {"mobilenet_v2": "mobilenetv2_100"}


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return "segmentation_head.0.weight" in names and _first(names) is not None


def table(name: str, backbone: str, aspp_separable: bool, old: bool = False) -> Table:
    """Its names -> ours, for a model with a backbone. old: of DeepLabV3 before version 0.4."""
    encoder = (
        {"encoder.model": "backbone.network"} if backbone.startswith("timm:") else {"encoder": "backbone"}
    )
    # the classification head names whole pictures
    return encoder | {"classification_head": None} | _head_table(name, aspp_separable, old)


def _head_table(name: str, aspp_separable: bool, old: bool) -> Table:
    if name == "pspnet":
        levels: Table = {f"decoder.psp.blocks.{i}.pool.1": f"pyramid.levels.{i}" for i in range(4)}
        return levels | {"decoder.conv": "head", "segmentation_head.0": "head.4"}
    if name == "deeplab_v3":
        theirs, conv, bn = OLD_V3 if old else V3
        ours = "context"
        rest: Table = {conv: "extra_conv.0", bn: "extra_conv.1"}
    else:
        theirs, ours = "decoder.aspp.0", "aspp"
        rest = {
            "decoder.aspp.1": "aspp_conv",
            "decoder.aspp.2": "aspp_conv.2",
            "decoder.block1": "decoder.reduce",
            "decoder.block2.0": "decoder.refine.0",
            "decoder.block2.1": "decoder.refine.0.2",
        }
    aspp: Table = {
        f"{theirs}.convs": f"{ours}.branches",
        f"{theirs}.convs.4.1": f"{ours}.branches.4.conv.0",
        f"{theirs}.convs.4.2": f"{ours}.branches.4.conv.1",
        f"{theirs}.project": f"{ours}.project",
    }
    if aspp_separable:
        for i in (1, 2, 3):
            aspp[f"{theirs}.convs.{i}.0"] = f"{ours}.branches.{i}"
            aspp[f"{theirs}.convs.{i}.1"] = f"{ours}.branches.{i}.2"
    return aspp | rest | {"segmentation_head.0": "classifier"}


def model_config(
    name: str,
    backbone: str,
    num_classes: int,
    *,
    output_stride: int,
    in_channels: int = 3,
    encoder_depth: int = 5,
    atrous_rates: Sequence[int] = RATES,
    aspp_separable: bool = False,
    channels: int | None = 256,
    dropout: float = 0.5,
) -> ModelConfig:
    """Its model `name` in our options. channels: of the ASPP and decoder, or of PSPNet's head."""
    options: dict[str, Any] = {"align_corners": True, "dropout": dropout}
    if encoder_depth != 5:
        options["encoder_depth"] = encoder_depth
    if backbone == "legacy_xception":
        options |= {"relu_features": False, "last_relu": False}
    elif not backbone.startswith("timm:"):
        options["dilate_from"] = "first"
        options |= (
            {"last_conv": True} if backbone == "mobilenet_v2" else {"deep_stem": False, "multi_grid": (1,)}
        )
    if name == "pspnet":
        options |= {"aux": False, "head_channels": channels, "norm_at_1": False}
        options |= {"head_kernel": 1, "classifier_kernel": 3}
    else:
        options |= {"atrous_rates": tuple(atrous_rates), "channels": channels}
    if name == "deeplab_v3":
        options |= {"separable": "plain" if aspp_separable else False, "extra_conv": True}
    elif name == "deeplab_v3plus":
        options |= {"separable": "plain", "aspp_conv": True, "decoder_convs": 1}
        options |= {} if aspp_separable else {"aspp_separable": False}
    return ModelConfig(
        name, backbone, num_classes, min(output_stride, 2**encoder_depth), in_channels, options
    )


def convert(
    content: Content,
    encoder: str | None = None,
    output_stride: int | None = None,
    encoder_depth: int | None = None,
    atrous_rates: Sequence[int] | None = None,
) -> Converted:
    """What config.json says where it is beside the weights, and what these options say instead of it.

    encoder: its name there, such as "resnet34" or "tu-convnext_tiny". None: as the weights tell.
    output_stride, encoder_depth, atrous_rates: encoder_output_stride, encoder_depth and decoder_atrous_rates there.
    """
    said = content.extras.get("config")
    said = said if isinstance(said, dict) else {}
    weights = dict(content.tensors)
    first = _first(weights)
    if first is None:
        raise content.error(
            "none of the models of segmentation_models that are known: DeepLabV3, DeepLabV3Plus, PSPNet"
        )
    name = FIRST[first]
    encoder = encoder or said.get("encoder_name") or _guess(weights)
    of_timm = any(name.startswith("encoder.model.") for name in weights)
    if of_timm and str(encoder).startswith("timm-"):  # names of its earlier versions
        encoder = str(encoder).replace("timm-", "tu-", 1)
    if encoder is None and of_timm:
        raise content.error("timm has many networks: say which with --options.encoder tu-NAME")
    if encoder is None:
        raise content.error(
            f"its encoder is not here; {', '.join(ENCODERS)} are, and timm's networks (tu-...)"
        )
    backbone = _backbone(content, str(encoder), name)
    read = weights[first].shape[1]  # channels of the features under the decoder
    depth = encoder_depth or said.get("encoder_depth") or _depth(backbone, read) or DEPTH[name]
    output_stride = output_stride or said.get("encoder_output_stride")
    atrous_rates = atrous_rates or said.get("decoder_atrous_rates")
    stride = _whole(content, "output_stride", output_stride or OUTPUT_STRIDE[name], (8, 16, 32))
    rates = numbers_of(content, "atrous_rates", atrous_rates, RATES)

    if name == "pspnet":
        separable, channels = False, len(weights["decoder.conv.0.weight"])
        take_epsilon(weights, "decoder", _epsilon(content, said, weights))
    else:
        separable = first.replace("convs.0.0.", "convs.1.0.0.") in weights
        channels = len(weights[first])
    config = model_config(
        name,
        backbone,
        len(weights["segmentation_head.0.weight"]),
        output_stride=stride,
        encoder_depth=_whole(content, "encoder_depth", depth, range(3, 6)),
        atrous_rates=rates,
        aspp_separable=separable,
        channels=channels,
    )
    if backbone.startswith("timm:"):
        depths = {"encoder_depth": config.options.get("encoder_depth", 5)}
        own, conv = shapes_of(backbone, config.output_stride, **depths)
        network = {f"network.{key}": value for key, value in indented("encoder.model", weights).items()}
        check_fits(content, backbone, own, conv, network)
    found = rename(weights, table(name, backbone, separable, "decoder.1.weight" in weights))
    normalization = xception.NORMALIZATION if backbone == "legacy_xception" else normalization_of(backbone)
    notes = []
    if name != "pspnet":  # its encoder is not dilated, and its bins are always the same
        notes = assumed(config, output_stride=output_stride, atrous_rates=atrous_rates)
    factor = {"deeplab_v3": config.output_stride, "deeplab_v3plus": 4, "pspnet": 2**depth}[name]
    if said.get("upsampling") not in (None, factor):
        notes.append(
            f"its upsampling {said['upsampling']} gives scores of another size than the picture; here they have it"
        )
    return Converted(config, turn_joined(found), normalization, notes=notes)


def turn_joined(found: Renamed) -> Renamed:
    """Swap the two halves of what PSPNet's head reads, features and pyramid; it leads there and back."""
    if JOINED in found.weights:
        joined = found.weights[JOINED]
        found.weights[JOINED] = joined.roll(joined.shape[1] // 2, 1)
    return found


def fitting(config: ModelConfig) -> tuple[ModelConfig, Table]:
    """The model there that is nearest to one of ours, in our options, and its names -> ours."""
    name, backbone, options = config.name, config.backbone, config.options
    known = backbone in ENCODERS.values() and (backbone != "legacy_xception" or name == "pspnet")
    if name not in DEPTH or not (known or backbone.startswith("timm:")):
        raise InputError(
            f"{name} on {backbone} has no place in segmentation_models: it has {', '.join(DEPTH)} on "
            f"{', '.join(ENCODERS)} and timm's networks"
        )
    depth = options.get("encoder_depth", 5)
    plus = name == "deeplab_v3plus"
    both = options.get("separable", False)
    separable = bool(options.get("aspp_separable", both) if plus else both)
    rates = options.get("atrous_rates")
    rates = aspp_rates(config.output_stride) if rates is None else rates
    wanted = model_config(
        name,
        backbone,
        config.num_classes,
        output_stride=OUTPUT_STRIDE[name] if name == "pspnet" else 8 if config.output_stride == 8 else 16,
        in_channels=config.in_channels,
        encoder_depth=depth,
        atrous_rates=rates if len(rates) == len(RATES) else RATES,
        aspp_separable=separable,
        channels=options.get("head_channels") if name == "pspnet" else options.get("channels", 256),
    )
    return wanted, table(name, backbone, separable)


def _first(names: Collection[str]) -> str | None:
    return next((name for name in FIRST if name in names), None)


def _guess(weights: Mapping[str, Tensor]) -> str | None:
    """The encoder's name there, for those that are known here too; so that what one of them lacks can be named."""
    for prefix, kind in (("encoder.model", "tu-"), ("encoder", "")):
        encoder = indented(prefix, weights)
        known = known_backbone(encoder)
        name = known[0] if known else damaged_backbone(encoder)
        if name:
            return kind + (TIMM_NAMES.get(name, name) if kind else name)
    return "xception" if "encoder.block12.rep.1.conv1.weight" in weights else None


def _backbone(content: Content, encoder: str, name: str) -> str:
    if encoder.startswith("tu-"):
        return f"timm:{encoder.removeprefix('tu-')}"
    if encoder not in ENCODERS:
        raise content.error(
            f"its encoder {encoder} is not here; {', '.join(ENCODERS)} are, and timm's networks (tu-...)"
        )
    if encoder == "xception" and name != "pspnet":
        raise content.error("its encoder xception cannot dilate, so it is known in PSPNet alone")
    return ENCODERS[encoder]


def _depth(backbone: str, channels: int) -> int | None:
    """encoder_depth: the deepest stage that has as many channels as the decoder reads.

    Where timm's network begins with a stride of 4, there is an empty stage before its own.
    """
    options = {"last_conv": True} if backbone == "mobilenet_v2" else {}
    with torch.device("meta"):
        stages = create_backbone(backbone, output_stride=32, **options).channels
    return max((i for i, c in enumerate(stages, 1 + 5 - len(stages)) if c == channels), default=None)


def _epsilon(content: Content, said: Mapping[str, Any], weights: Mapping[str, Tensor]) -> float:
    """That of the decoder's batch norms."""
    norm = said.get("decoder_use_norm", True)
    norm = norm if isinstance(norm, dict) else {"type": norm}
    eps = norm.get("eps", EPS)
    if norm.get("type") not in (True, "batchnorm") or "decoder.conv.1.running_var" not in weights:
        raise content.error("its decoder_use_norm is not batch norm, which alone is known here")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise content.error(f"the eps of its decoder_use_norm is {eps!r}, not between 0 and 1")
    return eps


def _whole(content: Content, what: str, value: Any, allowed: Sequence[int]) -> int:
    if type(value) is not int or value not in allowed:
        raise content.error(f"{what} {value!r} is not one of {allowed[0]} to {allowed[-1]}")
    return value


SOURCE = Source("segmentation_models.pytorch: DeepLabV3, DeepLabV3Plus, PSPNet", recognise, convert)
