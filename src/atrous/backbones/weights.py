"""Pretrained backbone weights: published ones by name, or a local file.

Published ("imagenet"):  ResNets, VGG-16, MobileNets: torchvision, IMAGENET1K_V1 as its DeepLabs started from
                         ResNets with the deep stem: timm's resnet50s, 101s, 152s (GluonCV)
                         Xceptions: timm's tf_in1k, which are Google's
                         DRNs: the authors'
A local file (.pth, .pt, .safetensors) may have torchvision's names, timm's, or the DRN authors'.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.download import download
from atrous.errors import InputError, choose

TORCHVISION = (
    "vgg16",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "mobilenet_v2",
    "mobilenet_v3_large",
)
TIMM = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
TIMM_MODELS = {
    "xception41": "xception41.tf_in1k",
    "xception65": "xception65.tf_in1k",
    "xception71": "xception71.tf_in1k",
}
TIMM_DEEP_STEM = {
    "resnet50": "resnet50s.gluon_in1k",
    "resnet101": "resnet101s.gluon_in1k",
    "resnet152": "resnet152s.gluon_in1k",
}
DRN = "http://dl.yf.io/drn/{}"  # the digits in a file's name begin its SHA-256, which is checked
DRN_FILES = {
    "drn_c_26": "drn_c_26-ddedf421.pth",
    "drn_c_42": "drn_c_42-9d336e8c.pth",
    "drn_c_58": "drn_c_58-0a53a92c.pth",
    "drn_d_22": "drn_d_22-4bd2f8ea.pth",
    "drn_d_38": "drn_d_38-eebb45f0.pth",
    "drn_d_54": "drn_d_54-0e0534ff.pth",
    "drn_d_105": "drn_d_105-12b40979.pth",
}

# Left out of a file on purpose: classifiers, and what no forward pass reads.
NOT_BACKBONE = re.compile(
    r"(fc|classifier|aux_classifier|head|pre_logits)\."
    r"|features\.18\."  # MobileNetV2's 1x1 to 1280 channels; DeepLab stops before it
    r"|layer[78]\.0\.downsample\."  # DRN-C's degridding blocks have no shortcut
)
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
PREFIXES = ("module.", "model.", "backbone.", "encoder.")  # DataParallel, Lightning, segmentation networks


def load_pretrained(backbone: Backbone, pretrained: bool | str | Path, *, name: str = "") -> None:
    """Load weights into a backbone, in place.

    `pretrained` is True or "imagenet" for the published weights of `name` (see the top of this file),
    downloaded once into torch hub's folder; "IMAGENET1K_V2" and the like for another set of torchvision's; or
    the path of a file. A dictionary under "state_dict" or "model" is unwrapped; "module." and "backbone."
    before the names are taken away; classifier weights are left out.

    With other than 3 input channels, weights of RGB images are adapted: 1 channel has the sum of the three
    (the same output for a grey picture), n channels repeat R, G, B and are scaled by 3/n (the same mean).

    Raises InputError where the file is missing, cannot be read or downloaded, or does not fit.
    """
    if pretrained is False:
        return
    path = _published(backbone, name, pretrained) or Path(pretrained if pretrained is not True else "")
    if not path.is_file():
        raise InputError(f"pretrained={str(pretrained)!r}: there is no such file, and it is not 'imagenet'")
    weights = torchvision_names(_without_prefixes(read_weights(path)))
    _fit(backbone, weights, source=str(path), name=name)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file (never unpickled beyond tensors), unwrapped."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as a file of weights: {reason}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no dictionary of weights but a {type(content).__name__}")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _published(backbone: Backbone, name: str, pretrained: bool | str | Path) -> Path | None:
    """The file of the published weights, or None where `pretrained` does not ask for them."""
    enum_name = str(pretrained) if str(pretrained).startswith("IMAGENET1K") else None
    if pretrained is not True and pretrained != "imagenet" and enum_name is None:
        return None
    deep_stem = "conv1.0.weight" in backbone.state_dict()
    timm_models = TIMM_DEEP_STEM if deep_stem else TIMM_MODELS
    if name in timm_models:
        return _download(TIMM.format(timm_models[name]), f"{timm_models[name]}.safetensors")
    if name in DRN_FILES:
        return _download(DRN.format(DRN_FILES[name]), DRN_FILES[name])
    if name in TORCHVISION and not deep_stem:
        from torchvision.models import get_model_weights

        enum = get_model_weights(name)
        member = choose(f"weights of {name}", enum_name or "IMAGENET1K_V1", enum.__members__)
        url: str = enum[member].url
        return _download(url, url.rsplit("/", 1)[-1])
    stem = " with a deep stem" if deep_stem else ""
    raise InputError(f"no published weights are known for {name or 'this backbone'}{stem}: give a file")


def _download(url: str, filename: str) -> Path:
    """The file in torch hub's folder, fetched if it is not there yet."""
    digits = re.search(r"-([0-9a-f]{8,})\.", filename)
    path = Path(torch.hub.get_dir()) / "checkpoints" / filename
    return download(url, path, digits[1] if digits else None)


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without "module.", "backbone." and the like; what lies beside the backbone (a decoder) goes."""
    for prefix in PREFIXES:
        if any(key.startswith(prefix) for key in weights):
            weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return weights


# timm's names inside an inverted residual of MobileNetV2 -> torchvision's
TIMM_FIRST_BLOCK = {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
TIMM_BLOCK = {
    "conv_pw": "conv.0.0",
    "bn1": "conv.0.1",
    "conv_dw": "conv.1.0",
    "bn2": "conv.1.1",
    "conv_pwl": "conv.2",
    "bn3": "conv.3",
}
TIMM_OTHERS = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.18.0",
    "bn2": "features.18.1",
}


def torchvision_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's MobileNetV2 in torchvision's names; anything else untouched."""
    if "blocks.0.0.conv_dw.weight" not in weights or "blocks.1.0.conv_pwl.weight" not in weights:
        return weights
    places = [re.match(r"blocks\.(\d+)\.(\d+)\.", key) for key in weights]
    order = sorted({(int(p[1]), int(p[2])) for p in places if p})  # (row, block in the row)
    renamed = {}
    for key, value in weights.items():
        module, _, parameter = key.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", module):
            index = order.index((int(match[1]), int(match[2])))
            table = TIMM_FIRST_BLOCK if index == 0 else TIMM_BLOCK
            module = f"features.{1 + index}.{table.get(match[3], match[3])}"
        else:
            module = TIMM_OTHERS.get(module, module)
        renamed[f"{module}.{parameter}"] = value
    return renamed


def _fit(backbone: Backbone, weights: dict[str, Tensor], source: str, name: str) -> None:
    own = backbone.state_dict()
    weights = {key: value for key, value in weights.items() if not NOT_BACKBONE.match(key)}
    first = next(key for key, module in backbone.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    if first in weights:
        weights[first] = adapt_input(weights[first], own[first].shape[1])

    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in own]
    other_shape = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("of another shape", other_shape), ("unknown", unknown))
        if keys
    ]
    if problems:
        raise InputError(
            f"the weights in {source} do not fit {name or 'the backbone'}: {'; '.join(problems)}"
        )
    # strict but for num_batches_tracked, which old files lack
    backbone.load_state_dict(weights, strict=False)


def adapt_input(weight: Tensor, in_channels: int) -> Tensor:
    """First-convolution weights for RGB, (C, 3, k, k), made to fit other images: (C, in_channels, k, k)."""
    if weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)
