"""DeepLab v3: Rethinking Atrous Convolution for Semantic Image Segmentation.

Chen, Papandreou, Schroff, Adam, 2017, https://arxiv.org/abs/1706.05587

    form="aspp" (fig. 5)                                   form="cascade" (fig. 3b)

                    +- 1x1 conv ----------+                backbone up to block 4, output stride 16
                    +- 3x3 conv, rate  6 -+                   |       rate  2 x multi_grid
    backbone -------+- 3x3 conv, rate 12 -+- concat        block 5,   rate  4 x multi_grid
    output stride   +- 3x3 conv, rate 18 -+    |           block 6,   rate  8 x multi_grid
    16 (or 8, 32)   +- image pooling -----+ 1x1 conv       block 7,   rate 16 x multi_grid
                      each 256 + BN + ReLU     |              |
                                           classifier      classifier

Atrous convolution keeps the grid at `output_stride` (sec. 3.1); the units of a block have different rates,
the multi-grid (sec. 3.2.1); the pyramid has batch norm and sees the whole image through image pooling, and
its rates double where the output stride halves (sec. 3.3).

PASCAL VOC 2012 val, ResNet-101: mIoU 77.21 at output stride 16, 78.51 at 8, 79.77 with scales and flip
(sec. 4.3). The training: 30,000 iterations, batch 16, crop 513, poly from 0.007 (sec. 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.backbones.resnet import CHANNELS, STRIDES, ResNet, make_stage
from atrous.config import ModelConfig
from atrous.errors import InputError, choose
from atrous.layers import (
    SCALES,
    AlignCorners,
    MapMean,
    classifier,
    conv_bn_act,
    dilate,
    layout,
    max_over_scales,
    resize,
    scale_rates,
    separable_conv_bn_act,
)


def aspp_rates(output_stride: int) -> tuple[int, ...]:
    """Rates of the pyramid: (6, 12, 18) at output stride 16, doubled at 8 (sec. 3.3), halved at 32."""
    return scale_rates((6, 12, 18), 16, output_stride)


Separable = bool | Literal["plain", "linear"]


def choose_conv(separable: Separable) -> Callable[..., nn.Sequential]:
    """The convolution + BN + ReLU that `separable` asks for."""
    if separable == "plain":
        return partial(separable_conv_bn_act, bn_between=False)
    if separable == "linear":
        return partial(separable_conv_bn_act, act_between=False)
    return separable_conv_bn_act if separable else conv_bn_act


class ImagePooling(nn.Module):
    """Image-level features (sec. 3.3): mean over the grid, 1x1 conv, and back over the grid.

    (N, in_channels, h, w) to (N, out_channels, h, w). The bilinear resize of one value is that value at
    every point, so `expand` does it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pool = MapMean()
        self.conv = conv_bn_act(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.conv(self.pool(x))
        grown = pooled.expand(-1, -1, *x.shape[-2:])
        return grown.contiguous(memory_format=layout(x))  # else `cat` would lay all branches out anew


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (sec. 3.3, fig. 5): (N, in_channels, h, w) to (N, channels, h, w).

    `rates`: one 3x3 branch for each; none leaves the 1x1 branch and image pooling, Google's mobile form.
    `separable`: atrous separable 3x3 branches (DeepLab v3+ sec. 3.1); "plain" has no batch norm between their halves.
    `project_kernel`: of the convolution that joins the branches; the paper's is 1, mmsegmentation's 3.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int],
        *,
        channels: int = 256,
        separable: Separable = False,
        project_kernel: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        conv3x3 = choose_conv(separable)
        self.branches = nn.ModuleList([conv_bn_act(in_channels, channels, 1)])
        self.branches.extend(conv3x3(in_channels, channels, 3, dilation=rate) for rate in rates)
        self.branches.append(ImagePooling(in_channels, channels))
        self.project = conv_bn_act(len(self.branches) * channels, channels, project_kernel)
        self.dropout = nn.Dropout(dropout)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        pyramid = torch.cat([branch(x) for branch in self.branches], dim=1)
        projected: Tensor = self.dropout(self.project(pyramid))
        return projected


class Cascade(nn.Sequential):
    """Blocks 5, 6 and 7 behind a ResNet: block 4 again, each one's rate twice the last's (sec. 3.2, fig. 3b).

    (N, c, h, w) to (N, c, h, w). Uncapped, each block would halve the grid once more; what is left of that
    at `output_stride` is the rate. The multi-grid is the backbone's.
    """

    def __init__(self, backbone: Backbone) -> None:
        if not isinstance(backbone, ResNet):
            name = type(backbone).__name__
            raise InputError(
                f"form='cascade' repeats block 4 of a ResNet (resnet18 to resnet152), not {name}"
            )
        block4 = backbone.layer4
        super().__init__(
            *(
                make_stage(
                    type(block4[0]),  # type: ignore[arg-type]
                    backbone.channels[-1],
                    CHANNELS[-1],
                    len(block4),
                    plan,
                    multi_grid=backbone.multi_grid,
                    dilate_from=backbone.dilate_from,
                )
                for plan in dilate((*STRIDES, 2, 2, 2), backbone.output_stride)[-3:]
            )
        )
        self.out_channels = backbone.channels[-1]


class DeepLabV3(nn.Module):
    """DeepLab v3 on any backbone; the backbone's output stride is the model's.

    Args:
        backbone: a built backbone.
        num_classes: C.
        form: "aspp" (sec. 3.3), or "cascade" (sec. 3.2) on a ResNet: blocks 5 to 7, no ASPP.
        atrous_rates: rates of the 3x3 branches, as they are. None: (6, 12, 18) at output stride 16, and in
            proportion. (): none of them, which is Google's mobile form (1x1 and image pooling).
        separable: atrous separable 3x3 branches; "plain": without batch norm between depthwise and 1x1; "linear":
            without the ReLU between (PaddleSeg).
        channels: of the ASPP; 512 in mmsegmentation.
        project_kernel: of the convolution behind its branches; 3 in mmsegmentation.
        extra_conv: torchvision's 3x3 conv + BN + ReLU before the classifier.
        aux: torchvision's auxiliary head, an FCN that is scored in training only.
        aux_stage: the backbone's stage under it; -2 is block 3 of a ResNet.
        aux_channels: of its 3x3 convolution. None: a quarter of the stage's.
        msc: v2's maximum over three scales of the picture (kazuto1011).
        dropout: after the ASPP. 0.1 in the authors' code, 0.5 in torchvision.
        align_corners: of the resize to the picture's size; True for weights from the authors' code, "asymmetric" for
            some of their TFLite files (see `layers.resize`).

    Raises InputError for an unknown form, or "cascade" on another backbone than a ResNet.
    """

    config: ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        form: Literal["aspp", "cascade"] = "aspp",
        atrous_rates: Sequence[int] | None = None,
        separable: Separable = False,
        channels: int = 256,
        project_kernel: int = 1,
        extra_conv: bool = False,
        aux: bool = False,
        aux_stage: int = -2,
        aux_channels: int | None = None,
        msc: bool = False,
        dropout: float = 0.1,
        align_corners: AlignCorners = False,
    ) -> None:
        super().__init__()
        choose("form", form, ("aspp", "cascade"))
        rates = aspp_rates(backbone.output_stride) if atrous_rates is None else atrous_rates
        self.backbone = backbone
        self.context: ASPP | Cascade
        if form == "aspp":
            self.context = ASPP(
                backbone.channels[-1],
                rates,
                channels=channels,
                separable=separable,
                project_kernel=project_kernel,
                dropout=dropout,
            )
        else:
            self.context = Cascade(backbone)
        out = self.context.out_channels
        self.extra_conv = conv_bn_act(out, out, 3) if extra_conv else nn.Identity()
        self.classifier = classifier(out, num_classes)
        self.aux = fcn_head(backbone.channels[aux_stage], num_classes, aux_channels) if aux else None
        self.aux_stage = aux_stage
        self.scales = SCALES if msc else (1.0,)
        self.align_corners = align_corners

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Logits on the grid of the output stride: "out" (N, C, h, w), with `aux` in training also "aux".

        With `msc` in training also "scale_0.5", "scale_0.75" and "scale_1", each on its own grid.
        """
        return max_over_scales(
            self._scores, x, self.scales, training=self.training, align_corners=self.align_corners
        )

    def _scores(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        scores = {"out": self.classifier(self.extra_conv(self.context(features[-1])))}
        if self.training and self.aux is not None:
            scores["aux"] = self.aux(features[self.aux_stage])
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W from 1 up, to logits (N, C, H, W)."""
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def learning_rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the multiple of the learning rate they train at: backbone 1, the new layers 10.

        The paper trains all at one rate; 10 for the layers without ImageNet weights is the habit of v1 and v2
        (v2 sec. 4.1) that PyTorch versions kept.
        """
        head = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [(list(self.backbone.parameters()), 1.0), (head, 10.0)]


def fcn_head(in_channels: int, num_classes: int, channels: int | None = None) -> nn.Sequential:
    """torchvision's FCNHead: 3x3 conv + BN + ReLU, dropout 0.1, 1x1 to C. channels: None is in_channels / 4."""
    channels = channels or in_channels // 4
    return nn.Sequential(
        *conv_bn_act(in_channels, channels, 3), nn.Dropout(0.1), classifier(channels, num_classes)
    )
