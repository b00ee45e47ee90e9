"""PSPNet: Pyramid Scene Parsing Network.

Zhao, Shi, Qi, Wang, Jia, CVPR 2017, https://arxiv.org/abs/1612.01105

    backbone, output stride 8 (sec. 3.2, fig. 3)

      res4 ------ 3x3 256 - 1x1 C                        auxiliary loss, weight 0.4 (sec. 4, fig. 4)
       |
      res5 -+-----------------------------------+
            +- pool to 1x1 - 1x1 conv, c/4 - up -+
            +- pool to 2x2 - 1x1 conv, c/4 - up -+- concat (2c) - 3x3 512 - dropout 0.1 - 1x1 C
            +- pool to 3x3 - 1x1 conv, c/4 - up -+
            +- pool to 6x6 - 1x1 conv, c/4 - up -+                 each conv + BN + ReLU

The ResNets have the deep stem, three 3x3 convolutions of 64, 64, 128 channels; layer sizes beyond the
paper's text are those of the authors' code. The training: poly 0.9 from 0.01, batch 16, weight decay 1e-4
(sec. 5.1). ADE20K val mIoU 43.29 (ResNet-101); Cityscapes test 78.4; PASCAL VOC 2012 test 85.4 with COCO.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.config import ModelConfig
from atrous.layers import conv_bn_act, region_means, resize


class PyramidPooling(nn.Module):
    """(N, c, h, w) to (N, 2c, h, w): the features, and their means over b x b regions for b in `bins`."""

    def __init__(
        self,
        in_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool = False,
        channels: int | None = None,
        norm_at_1: bool = True,
    ) -> None:
        super().__init__()
        channels = channels or in_channels // len(bins)
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(
            conv_bn_act(in_channels, channels, 1)
            if size > 1 or norm_at_1
            else _conv_act(in_channels, channels)
            for size in bins
        )
        self.out_channels = in_channels + channels * len(bins)
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [x]
        for size, conv in zip(self.bins, self.levels, strict=True):
            pooled = conv(region_means(x, size))
            pyramid.append(resize(pooled, x.shape[-2:], self.align_corners))
        return torch.cat(pyramid, dim=1)


class PSPNet(nn.Module):
    """PSPNet on any backbone; the paper's output stride is 8.

    Args:
        backbone: a built backbone.
        num_classes: C.
        bins: sizes of the pooled grids.
        aux: the auxiliary head on the stage before the last, scored in training only.
        channels: of every level of the pyramid and of the head. None: 1/len(bins) and a quarter of the backbone's.
        aux_channels: of the auxiliary head. None: a quarter of its stage's.
        head_channels: of the head alone. None: as `channels` says.
        head_kernel, classifier_kernel: of the head's two convolutions; 1 and 3 in segmentation_models.
        norm_at_1: batch norm in the level of bin 1; without it the convolution has a bias (segmentation_models).
        dropout: before both classifiers.
        align_corners: of every resize; True for weights from the authors' code.
    """

    config: ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        bins: Sequence[int] = (1, 2, 3, 6),
        aux: bool = True,
        dropout: float = 0.1,
        align_corners: bool = False,
        channels: int | None = None,
        aux_channels: int | None = None,
        head_channels: int | None = None,
        head_kernel: int = 3,
        classifier_kernel: int = 1,
        norm_at_1: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = PyramidPooling(backbone.channels[-1], bins, align_corners, channels, norm_at_1)
        # a quarter of the channels: 2048 -> 512 here, 1024 -> 256 in the auxiliary head (authors' code)
        channels = head_channels or channels or backbone.channels[-1] // 4
        kernels = head_kernel, classifier_kernel
        self.head = _head(self.pyramid.out_channels, channels, num_classes, dropout, kernels)
        aux_in = backbone.channels[-2]
        self.aux = _head(aux_in, aux_channels or aux_in // 4, num_classes, dropout) if aux else None
        self.align_corners = align_corners

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Logits on the grid of the output stride: "out" (N, C, h, w), with `aux` in training also "aux"."""
        features = self.backbone(x)
        scores = {"out": self.head(self.pyramid(features[-1]))}
        if self.training and self.aux is not None:
            scores["aux"] = self.aux(features[-2])
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W from 1 up, to logits (N, C, H, W)."""
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def learning_rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the multiple of the learning rate: backbone 1, new layers 10 (authors' code)."""
        head = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [(list(self.backbone.parameters()), 1.0), (head, 10.0)]


def _head(
    in_channels: int, channels: int, num_classes: int, dropout: float, kernels: tuple[int, int] = (3, 1)
) -> nn.Sequential:
    last = nn.Conv2d(channels, num_classes, kernels[1], padding=kernels[1] // 2)
    return nn.Sequential(*conv_bn_act(in_channels, channels, kernels[0]), nn.Dropout(dropout), last)


def _conv_act(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))
