"""Any network of timm that gives features and can dilate: `create_backbone("timm:convnext_tiny")`.

Wightman. PyTorch image models. https://github.com/huggingface/pytorch-image-models
An optional part of the installation, imported only when it is asked for.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.backbones.weights import read_weights
from atrous.errors import InputError

DEPTH = 5  # stages of the usual network, each half as large as the one before


class TimmBackbone(Backbone):
    """(N, in_channels, H, W) -> the maps of timm's `features_only`; how many is the network's own matter."""

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        pretrained: bool | str | Path | None = None,
        encoder_depth: int = 5,
        **options: Any,
    ) -> None:
        """
        name           as in `timm.list_models()`, also with a tag: "resnet50.a1_in1k"
        pretrained     True or "imagenet": timm's own weights of that name; otherwise the path of a file
        encoder_depth  only the stages down to the plain network's stride 2 ** encoder_depth (segmentation_models)
        options        handed to `timm.create_model`

        Raises InputError without timm, for an unknown name, for a network that has no feature maps or cannot
        have the output stride, and for weights that cannot be had or do not fit.
        """
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise InputError(f"timm:{name} needs timm: pip install 'atrous[timm]'") from error

        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
            raise InputError(f"timm has no model {name!r}: {hint}")
        options |= {"features_only": True, "output_stride": output_stride, "in_chans": in_channels}
        try:
            if encoder_depth < DEPTH:
                whole: Any = timm.create_model(name, features_only=True).feature_info
                options["out_indices"] = [
                    i for i, stride in enumerate(whole.reduction()) if stride <= 2**encoder_depth
                ]
            self.network = timm.create_model(name, **options)
        except (
            TypeError,
            ValueError,
            RuntimeError,
            AssertionError,
            AttributeError,
        ) as error:  # one for each family
            raise InputError(_cannot(name, output_stride, str(error) or type(error).__name__)) from error
        feature_info: Any = self.network.feature_info
        self.channels = tuple(feature_info.channels())
        self.strides = tuple(feature_info.reduction())
        if self.strides[-1] != output_stride:
            raise InputError(_cannot(name, output_stride, f"its features end at stride {self.strides[-1]}"))

        if pretrained:
            if pretrained is not True and pretrained != "imagenet":
                options["pretrained_cfg_overlay"] = {"state_dict": read_weights(Path(pretrained))}
            try:
                self.network = timm.create_model(name, pretrained=True, **options)
            except Exception as error:  # whatever the hub's client raises, or load_state_dict
                published = timm.get_pretrained_cfg(name)
                where = published.hf_hub_id if published else None
                raise InputError(
                    f"weights of timm:{name} (pretrained={str(pretrained)!r}) cannot be loaded: {error}\n"
                    f"Without a network, fetch model.safetensors of {where or name} from the Hugging Face hub "
                    f"on another machine and give its path as `pretrained`"
                ) from error
        self._pads = any(
            isinstance(m, nn.Conv2d) and m.kernel_size == m.stride != (1, 1) for m in self.network.modules()
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        height, width = x.shape[-2:]
        if self._pads:  # convolutions as wide as their stride would drop the last rows and columns (ConvNeXt)
            x = F.pad(x, (0, -width % self.output_stride, 0, -height % self.output_stride))
        features: list[Tensor] = self.network(x)
        return [
            f[..., : -(-height // s), : -(-width // s)] for f, s in zip(features, self.strides, strict=True)
        ]


def _cannot(name: str, output_stride: int, reason: str) -> str:
    return f"timm:{name} cannot give features at output stride {output_stride}: {reason}"
