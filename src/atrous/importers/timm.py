"""Backbones of timm: weights of any of its networks that can dilate, as files or folders of the Hugging Face hub.

Those that are here too (`OURS`) become ours; of the others timm's code is used, as "timm:<name>". Some have the names
and shapes of another one: resnetblur18 is taken for a resnet18 where no config.json says its name.
https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
        raise content.error('timm has many networks: say which with backbone="timm:<name>"')
    backbone = backbone or f"timm:{architecture}"
    if not backbone.startswith("timm:"):
        return imagenet.convert(content, model, backbone, output_stride, model_options)
    stride = output_stride or MODELS[choose("model", model, MODELS)].output_stride
    own = shapes_of(backbone, stride)
    names = table(content.tensors, own)
    check_fits(content, backbone, own, {ours: content.tensors[name] for name, ours in names.items() if ours})
    normalization = said or normalization_of(backbone)
    return backbone_only(content, model, backbone, names, stride, normalization, **(model_options or {}))


def shapes_of(backbone: str, output_stride: int, in_channels: int = 3, **options: Any) -> dict[str, Tensor]:
    """The weights of a backbone, without their values and their memory."""
    with torch.device("meta"):
        network = create_backbone(backbone, output_stride=output_stride, in_channels=in_channels, **options)
    return network.state_dict()


def check_fits(
    content: Content, backbone: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """InputError before a network is built that a file names and does not hold."""
    wanted = [name for name in own if not name.endswith("num_batches_tracked")]
    lacking = [name for name in wanted if name not in found or found[name].shape != own[name].shape]
    if lacking:
        name, shape = lacking[0], tuple(own[lacking[0]].shape)
        raise content.error(f"{len(lacking)} weights of {backbone} are not in it, first {name} {shape}")


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


SOURCE = Source("timm's classifiers, as backbones", recognise, convert)
