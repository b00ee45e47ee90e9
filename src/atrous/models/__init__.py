"""The models, one file per paper. `create_model` builds one by its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atrous.backbones import BACKBONES, create_backbone
from atrous.backbones.base import Backbone
from atrous.backbones.vgg import decimate_fc
from atrous.backbones.weights import read_weights
from atrous.config import ModelConfig
from atrous.errors import InputError, choose
from atrous.fake_quantize import fake_quantize
from atrous.hints import check_value, keyword_arguments
from atrous.layers import scale_rates
from atrous.models.deeplab_v1 import DeepLabV1
from atrous.models.deeplab_v2 import DeepLabV2
from atrous.models.deeplab_v3 import DeepLabV3
from atrous.models.deeplab_v3plus import DeepLabV3Plus
from atrous.models.pspnet import PSPNet

__all__ = [
    "MODELS",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "Model",
    "PSPNet",
    "at_output_stride",
    "backbone_options",
    "build_model",
    "create_model",
    "empty_model",
    "model_options",
    "smallest_picture",
]

Model = DeepLabV1 | DeepLabV2 | PSPNet | DeepLabV3 | DeepLabV3Plus


@dataclass(frozen=True)
class Paper:
    """A model and what its paper builds it on."""

    model: Callable[..., Model]
    backbone: str
    output_stride: int
    backbone_options: dict[str, dict[str, Any]] = field(default_factory=dict)


def _resnets(**options: Any) -> dict[str, dict[str, Any]]:
    """The options for the ResNets of the papers, those with three bottlenecks in block 4."""
    return dict.fromkeys(("resnet50", "resnet101", "resnet152"), options)


# dilate_from="first": at output stride 8 all of res4 has rate 2, all of res5 rate 4 (v2 sec. 4.1, PSPNet);
# at 16 block 4 has 2 x (1, 2, 4) (v3 sec. 3.2.1). torchvision's first unit keeps the old rate: "second".
MODELS: dict[str, Paper] = {
    "deeplab_v1": Paper(DeepLabV1, "vgg16", 8),
    "deeplab_v2": Paper(
        DeepLabV2, "resnet101", 8, _resnets(dilate_from="first") | {"vgg16": {"average_pool": False}}
    ),
    "pspnet": Paper(PSPNet, "resnet50", 8, _resnets(dilate_from="first", deep_stem=True)),
    "deeplab_v3": Paper(DeepLabV3, "resnet101", 16, _resnets(dilate_from="first", multi_grid=(1, 2, 4))),
    "deeplab_v3plus": Paper(
        DeepLabV3Plus, "resnet101", 16, _resnets(dilate_from="first", multi_grid=(1, 2, 4))
    ),
}


def create_model(
    name: str,
    backbone: str | None = None,
    num_classes: int = 21,
    output_stride: int | None = None,
    pretrained: bool | str | Path | None = None,
    in_channels: int = 3,
    **options: Any,
) -> Model:
    """Build a model of the DeepLab family.

    Args:
        name: deeplab_v1, deeplab_v2, pspnet, deeplab_v3 or deeplab_v3plus.
        backbone: a name of `atrous.backbones.BACKBONES`, or "timm:<name>". None: the paper's.
        num_classes: C, at least 1.
        output_stride: input size over the size of the backbone's last features. None: the paper's.
        pretrained: weights of the backbone: "imagenet" or the path of a file.
        in_channels: channels of the picture.
        options: of the model (`model_options(name)`) and of its backbone (`backbone_options(backbone)`).

    Returns a module with `forward(x: (N, in_channels, H, W)) -> logits (N, C, H, W)` for any H and W from
    `smallest_picture` up, which is 1 as a rule; `scores(x)`, the logits on the model's own grid and what only
    the loss needs; `learning_rate_groups()`; and `config`, the `ModelConfig` that rebuilds it.

    Raises InputError for an unknown name or option, with the nearest known one, for a value that is none of an
    option's, and for what the backbone cannot do.
    """
    paper = MODELS[choose("model", name, MODELS)]
    backbone = paper.backbone if backbone is None else backbone
    output_stride = paper.output_stride if output_stride is None else output_stride
    numbers: list[Any] = [num_classes, output_stride, in_channels]
    num_classes, output_stride, in_channels = (n.item() if isinstance(n, np.integer) else n for n in numbers)
    check_value("backbone", backbone, str)
    check_value("num_classes", num_classes, int)
    check_value("output_stride", output_stride, int)
    check_value("in_channels", in_channels, int)
    check_value("pretrained", pretrained, bool | str | Path | None)
    if num_classes < 1 or in_channels < 1:
        raise InputError(f"num_classes={num_classes} and in_channels={in_channels} must be at least 1")

    of_model, of_backbone = keyword_arguments(paper.model), backbone_options(backbone)
    for option, value in options.items():
        if option in of_model:
            check_value(option, value, of_model[option])
        elif option not in of_backbone:
            _unknown_option(option, name, list(of_model), backbone, of_backbone)
    options = paper.backbone_options.get(backbone, {}) | options

    network = create_backbone(
        backbone,
        output_stride=output_stride,
        in_channels=in_channels,
        pretrained=pretrained,
        **{key: value for key, value in options.items() if key in of_backbone},
    )
    model = paper.model(
        network, num_classes, **{key: value for key, value in options.items() if key in of_model}
    )
    if isinstance(model, DeepLabV1 | DeepLabV2) and backbone == "vgg16" and pretrained:
        weights = _vgg_weights(pretrained)
        if "classifier.0.weight" in weights:
            model.initialise_from_vgg(decimate_fc(weights))
    model.config = ModelConfig(name, backbone, num_classes, output_stride, in_channels, options)
    return model


def build_model(config: ModelConfig) -> Model:
    """`create_model` with the arguments that a checkpoint or an importer wrote down."""
    model = create_model(
        config.name,
        backbone=config.backbone,
        num_classes=config.num_classes,
        output_stride=config.output_stride,
        in_channels=config.in_channels,
        **config.options,
    )
    fake_quantize(model, config.fake_quantize)
    model.config = replace(model.config, fake_quantize=config.fake_quantize)
    return model


def empty_model(config: ModelConfig) -> Model:
    """`build_model` for weights that come from elsewhere: its own are not drawn, and are whatever the memory held."""
    with _Undrawn():
        return build_model(config)


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of random weights: half the time that building takes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        by_init = getattr(function, "__module__", None) == "torch.nn.init"
        if by_init or function in (Tensor.normal_, Tensor.uniform_):
            return given["tensor"] if "tensor" in given else args[0]
        return function(*args, **given)


def at_output_stride(model: Model, output_stride: int) -> Model:
    """The same weights at another output stride, atrous rates in proportion (DeepLab v3 sec. 3.1).

    `atrous_rates` that the model was given as they are, are scaled too. Returns the model itself where it has that
    stride already, otherwise another one. Raises InputError where its backbone cannot have it.
    """
    config = model.config
    if output_stride == config.output_stride:
        return model
    options = dict(config.options)
    if options.get("atrous_rates"):
        options["atrous_rates"] = scale_rates(options["atrous_rates"], config.output_stride, output_stride)
    other = empty_model(replace(config, output_stride=output_stride, options=options))
    other.load_state_dict(model.state_dict())
    if hasattr(model, "metadata"):
        other.metadata = model.metadata
    return other.train(model.training).to(next(model.parameters()).device)


def smallest_picture(model: nn.Module) -> int:
    """Sides in pixels of the smallest picture that a model takes: 1, but for some forms of the legacy Xception."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone) or backbone.smallest == 1:
        return 1
    return math.ceil(backbone.smallest / min(getattr(model, "scales", (1.0,))))


def model_options(name: str) -> list[str]:
    """The options of a model: the keyword arguments of its class."""
    return list(keyword_arguments(MODELS[choose("model", name, MODELS)].model))


def backbone_options(name: str) -> list[str]:
    """The options of a backbone, such as multi_grid, deep_stem or width."""
    if name.startswith("timm:"):
        return ["encoder_depth"]
    builder = BACKBONES[choose("backbone", name, [*BACKBONES, "timm:<name>"])]
    return [option for option in keyword_arguments(builder) if option not in ("output_stride", "in_channels")]


def _unknown_option(
    option: str, name: str, of_model: list[str], backbone: str, of_backbone: list[str]
) -> None:
    try:
        choose("option", option, of_model + of_backbone)
    except InputError as error:
        complaint = str(error).removesuffix(f"choose from {', '.join(of_model + of_backbone)}")
        known = f"{name} has {', '.join(of_model)}; {backbone} has {', '.join(of_backbone) or 'none'}"
        raise InputError(f"{complaint.rstrip()} {known}") from None


def _vgg_weights(pretrained: bool | str | Path) -> dict[str, Tensor]:
    """All of VGG-16's weights, with the classifier that the backbone leaves out."""
    if Path(str(pretrained)).is_file():
        return read_weights(Path(str(pretrained)))
    from torchvision.models import VGG16_Weights

    known = VGG16_Weights.__members__
    return dict(known.get(str(pretrained), VGG16_Weights.IMAGENET1K_V1).get_state_dict(check_hash=True))
