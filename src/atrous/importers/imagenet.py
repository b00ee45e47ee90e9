"""Classifiers of torchvision: resnet18 to resnet152, vgg16, mobilenet_v2, mobilenet_v3_large. Backbones without a head.

Also a ResNet of anyone else that has torchvision's names, timm's for instance.
https://github.com/pytorch/vision/tree/main/torchvision/models
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from atrous.backbones import create_backbone
from atrous.backbones.weights import NOT_BACKBONE, torchvision_names
from atrous.config import Normalization
from atrous.errors import choose
from atrous.importers.convert import Converted, Source, backbone_only
from atrous.importers.files import Content
from atrous.importers.names import Table

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
DEEP_RESNETS = ("resnet50", "resnet101", "resnet152")
XCEPTIONS = ("xception41", "xception65", "xception71")
# backbones that a file's names and shapes tell apart, with the options that they need
KNOWN: list[tuple[str, dict[str, Any]]] = [
    *((name, {"deep_stem": False}) for name in RESNETS),
    *((name, {"deep_stem": True}) for name in DEEP_RESNETS),
    *((name, {}) for name in ("vgg16", "mobilenet_v2", "mobilenet_v3_large", *XCEPTIONS)),
]
FEW = 0.1  # of all
BEGINNINGS = ("conv1.weight", "conv1.0.weight", "features.0.weight", "features.0.0.weight")
TIMM_BEGINNINGS = ("conv_stem.weight", "stem.0.conv.weight")


def recognise(content: Content) -> bool:
    names = content.tensors.keys()
    return any(name in names for name in BEGINNINGS) and known_backbone(content.tensors) is not None


def known_backbone(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """The backbone of ours that weights in torchvision's or timm's names belong to, with its options.

    Every name and shape must agree, but for the classifier and the picture's channels.
    """
    if not any(name in weights for name in BEGINNINGS + TIMM_BEGINNINGS):
        return None
    found = _found(weights)
    for name, options in KNOWN:
        wanted, first = _shapes(name, tuple(options.items()))
        if found.keys() != wanted.keys() or len(found[first]) != 4:
            continue
        if all(found[key] == wanted[key] or key == first for key in wanted):
            return name, options
    return None


def damaged_backbone(weights: Mapping[str, Tensor]) -> str | None:
    """The backbone of ours that weights belong to but for a few that are missing or have another shape."""
    found = _found(weights)
    lacking: dict[str, float] = {}
    for name, options in KNOWN:
        wanted, _ = _shapes(name, tuple(options.items()))
        if found.keys() <= wanted.keys():
            lacking[name] = sum(found.get(key) != shape for key, shape in wanted.items()) / len(wanted)
    return min((name for name in lacking if lacking[name] <= FEW), key=lacking.__getitem__, default=None)


def _found(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of a backbone's weights in our names."""
    return {
        name: tuple(value.shape)
        for name, value in torchvision_names(dict(weights)).items()
        if not NOT_BACKBONE.match(name) and not name.endswith("num_batches_tracked")
    }


@lru_cache
def _shapes(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[dict[str, tuple[int, ...]], str]:
    """The shapes of a backbone's weights, and the name of its first convolution's."""
    with torch.device("meta"):
        network = create_backbone(name, output_stride=32, **dict(options))
    state = network.state_dict().items()
    shapes = {key: tuple(value.shape) for key, value in state if not key.endswith("num_batches_tracked")}
    first = next(key for key, module in network.named_modules() if isinstance(module, nn.Conv2d))
    return shapes, f"{first}.weight"


def table(weights: Mapping[str, Tensor]) -> Table:
    """Names of torchvision or timm -> those of our backbones; None for the classifier."""
    ours = torchvision_names(dict(weights))
    return {
        theirs: None if NOT_BACKBONE.match(name) else name for theirs, name in zip(weights, ours, strict=True)
    }


def convert(
    content: Content,
    model: str = "deeplab_v3plus",
    backbone: str | None = None,
    output_stride: int | None = None,
    model_options: dict[str, Any] | None = None,
) -> Converted:
    """model: what to build on it. backbone: None is told from the weights. output_stride: None is the paper's.

    model_options: more options of `create_model`.
    """
    known = known_backbone(content.tensors)
    if backbone is None and known is None:
        raise content.error("no backbone that is known here by its weights' names and shapes: give backbone")
    name, options = known or ("", {})
    if backbone is not None and backbone != name:
        name, options = choose("backbone", backbone, sorted({name for name, _ in KNOWN})), {}
    options = options | (model_options or {})
    half = (0.5, 0.5, 0.5)
    normalization = Normalization(half, half) if name in XCEPTIONS else None  # Google's, by way of timm
    return backbone_only(
        content, model, name, table(content.tensors), output_stride, normalization, **options
    )


SOURCE = Source("torchvision's classifiers, as backbones", recognise, convert, backbones=True)
