"""Backbones of timm: weights of any of its networks that can dilate, as files or folders of the Hugging Face hub.

Those that are here too (`OURS`) become ours; of the others timm's code is used, as "timm:<name>". Some have the names
and shapes of another one: resnetblur18 is taken for a resnet18 where no config.json says its name.
https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atrous.backbones import create_backbone
from atrous.backbones.weights import NOT_BACKBONE
from atrous.config import Normalization
from atrous.errors import choose
from atrous.importers import imagenet
from atrous.importers.convert import Converted, Source, backbone_only
from atrous.importers.files import Content
from atrous.importers.names import Table
from atrous.models import MODELS

# its networks that are ours layer by layer
OURS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50s", "resnet101s", "resnet152s",
    "xception41", "xception65", "xception71", "mobilenetv2_100", "vgg16",
)  # fmt: skip


def recognise(content: Content) -> bool:
    """By config.json beside it, or by names that timm alone has."""
    names = content.tensors.keys()
    named = any(name in names for name in imagenet.TIMM_BEGINNINGS)
    return _architecture(content) is not None or (
        named and imagenet.known_backbone(content.tensors) is not None
    )


def convert(
    content: Content,
    model: str = "deeplab_v3plus",
    backbone: str | None = None,
    output_stride: int | None = None,
    model_options: dict[str, Any] | None = None,
) -> Converted:
    """model: what to build on it. output_stride: None is that of its paper. model_options: more of `create_model`'s.

    backbone: "timm:<name>". None: ours where config.json names one of them, or no network and the weights fit one of
    them; otherwise what config.json names.
    """
    architecture = _architecture(content)
    said = _said(content) or (backbone and normalization_of(backbone))
    ours = architecture is None or architecture in OURS
    if backbone is None and ours and imagenet.known_backbone(content.tensors) is not None:
        converted = imagenet.convert(content, model, None, output_stride, model_options)
        converted.normalization = said or converted.normalization
        return converted
    if backbone is None and architecture is None:
        raise content.error("timm has many networks: say which with --options.backbone timm:NAME")
    backbone = backbone or f"timm:{architecture}"
    if not backbone.startswith("timm:"):
        return imagenet.convert(content, model, backbone, output_stride, model_options)
    stride = output_stride or MODELS[choose("model", model, MODELS)].output_stride
    own, first = shapes_of(backbone, stride)
    names = table(content.tensors, own)
    found = {ours: content.tensors[name] for name, ours in names.items() if ours}
    check_fits(content, backbone, own, first, found)
    normalization = said or normalization_of(backbone)
    options = model_options or {}
    return backbone_only(content, model, backbone, names, stride, normalization, **options)


def shapes_of(backbone: str, output_stride: int, **options: Any) -> tuple[dict[str, Tensor], str]:
    """(the weights of a backbone, without values and memory; the name of its first convolution's)."""
    with torch.device("meta"):
        network = create_backbone(backbone, output_stride=output_stride, **options)
    first = next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    return network.state_dict(), f"{first}.weight"


def check_fits(
    content: Content, backbone: str, own: Mapping[str, Tensor], first: str, found: Mapping[str, Tensor]
) -> None:
    """InputError before a network is built that a file does not hold. first: reads any number of channels."""
    channels = found[first].shape[1] if first in found and found[first].ndim == 4 else 3
    lacking = []
    for name, weight in own.items():
        there = tuple(found[name].shape) if name in found else None
        shape = tuple(weight.shape)
        if name == first:
            shape = (shape[0], channels, *shape[2:])
        if there != shape and not name.endswith("num_batches_tracked"):
            lacking.append(f"{name} {shape} ({'not there' if there is None else f'{there} there'})")
    if lacking:
        raise content.error(f"{len(lacking)} weights of {backbone} do not fit, first {lacking[0]}")


def table(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Table:
    """Names of a classifier of timm -> those of the same network as `features_only` has them.

    There dots may be underscores, and a "model." may stand before. What is neither is the classifier (None) or unknown.
    """
    flat = {_flat(name): name for name in own}
    found: Table = {theirs: flat[_flat(theirs)] for theirs in weights if _flat(theirs) in flat}
    return {theirs: None for theirs in weights if NOT_BACKBONE.match(theirs)} | found


def _flat(name: str) -> str:
    return name.removeprefix("network.").removeprefix("model.").replace(".", "_")


def normalization_of(backbone: str) -> Normalization:
    """That of timm's own weights of a network "timm:<name>", and ImageNet's where timm names none."""
    if not backbone.startswith("timm:"):
        return Normalization()
    try:
        import timm
    except ImportError:
        return Normalization()
    published = timm.get_pretrained_cfg(backbone.removeprefix("timm:"))
    return Normalization(tuple(published.mean), tuple(published.std)) if published else Normalization()


def _architecture(content: Content) -> str | None:
    said = content.extras.get("config")
    found = said.get("architecture") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def _said(content: Content) -> Normalization | None:
    """The normalisation of config.json, which a hub folder has."""
    config = content.extras.get("config")
    said = config.get("pretrained_cfg", config) if isinstance(config, dict) else None
    if not isinstance(said, dict) or "mean" not in said or "std" not in said:
        return None
    mean, std = (tuple(float(value) for value in said[key]) for key in ("mean", "std"))
    if len(mean) != len(std) or not min(std) > 0:
        raise content.error(f"its config.json has mean {mean} and std {std}")
    return Normalization(mean, std)


SOURCE = Source("timm's classifiers, as backbones", recognise, convert, backbones=True)
