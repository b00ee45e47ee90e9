"""MobileNetV2 up to its last inverted residual, with atrous depthwise convolution.

Sandler, Howard, Zhu, Zhmoginov, Chen. MobileNetV2: inverted residuals and linear bottlenecks. CVPR 2018.
arXiv 1801.04381 (DeepLab v3 on it: sec. 6.3).

    inverted residual    x -> 1x1, t*c -> 3x3 depthwise /s -> 1x1, c --(+)    BN after each, ReLU6 after
                         x -- where s = 1 and the channels agree ------(+)    the first two

The classifier's 1x1 convolution to 1280 channels is not part of it: DeepLab reads the 320 before (sec. 6.3).
Parameter names are torchvision's, so its state dict loads as it is.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from atrous.backbones.base import (
    Backbone,
    DilateFrom,
    block_rates,
    init_weights,
    set_batch_norm,
    stage_strides,
)
from atrous.errors import InputError, choose
from atrous.layers import BatchNorm2d, Padding, conv_bn_act, dilate

STEM_CHANNELS = 32

# paper, Table 2
#   t    c   n  s    expansion, channels, blocks, stride of the first
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STAGE_ENDS = (0, 1, 2, 4, 6)  # the last rows at strides 2, 4, 8, 16, 32


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not below 90 % (torchvision's and Google's rounding)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Paper, Fig. 4 d: (N, C_in, H, W) -> (N, C, H/s, W/s)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        expansion: int,
        stride: int,
        rate: int,
        shortcut: bool,
        pad_input: bool = False,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = shortcut
        self.padding = rate if pad_input else 0
        depthwise = conv_bn_act(
            hidden, hidden, 3, stride=stride, dilation=rate, groups=hidden, padding=padding, act=nn.ReLU6
        )
        if pad_input and isinstance(depthwise[0], nn.Conv2d):
            depthwise[0].padding = (0, 0)
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(conv_bn_act(in_channels, hidden, 1, act=nn.ReLU6))
        self.conv.extend([depthwise, nn.Conv2d(hidden, channels, 1, bias=False), BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x, [self.padding] * 4) if self.padding else x)
        return x + y if self.shortcut else y


class MobileNetV2(Backbone):
    """(N, in_channels, H, W) -> five maps: channels (16, 24, 32, 96, 320), strides (2, 4, 8, 16, 32).

    Strides beyond `output_stride` stay at it.
    """

    def __init__(
        self,
        blocks: tuple[tuple[int, int, int, int], ...] = BLOCKS,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        width: float = 1.0,
        dilate_from: DilateFrom = "second",
        pad_input: bool = False,
        padding: Padding = "symmetric",
        eps: float = 1e-5,
    ) -> None:
        """
        output_stride  32, 16, 8 (also 4, 2)
        width          the paper's width multiplier: 0.35, 0.5, 0.75, 1, 1.4
        dilate_from    "second": Google, timm, VainF; "first": the whole row has the new rate
                       (segmentation_models); "next": the new rate begins with the next row (jfzhang95)
        pad_input      the zeros of the 3x3 are put around the block's input instead, so that the 1x1 before
                       it turns them into its bias (jfzhang95, VainF)
        padding        "same": TensorFlow's, for weights from there (excludes pad_input)
        eps            of the batch norms: 1e-5 (torchvision, timm), 1e-3 (Google)

        Raises InputError for an output stride the network cannot have, and for both paddings at once.
        """
        super().__init__()
        if choose("padding", padding, ("symmetric", "same")) == "same" and pad_input:
            raise InputError('padding="same" and pad_input=True exclude each other')
        plan = dilate((2, *(s for *_, s in blocks)), output_stride)
        channels = make_divisible(STEM_CHANNELS * width)
        self.features = nn.Sequential(
            conv_bn_act(in_channels, channels, 3, stride=plan[0].stride, padding=padding, act=nn.ReLU6)
        )
        ends, row_channels = [], []
        for (t, c, n, s), row in zip(blocks, plan[1:], strict=True):
            out = make_divisible(c * width)
            for i, rate in enumerate(block_rates(row, n, dilate_from)):
                stride = row.stride if i == 0 else 1
                shortcut = (i > 0 or s == 1) and channels == out  # as in the plain network
                self.features.append(
                    InvertedResidual(channels, out, t, stride, rate, shortcut, pad_input, padding)
                )
                channels = out
            ends.append(len(self.features) - 1)
            row_channels.append(out)

        self._ends = tuple(ends[row] for row in STAGE_ENDS)
        self.channels = tuple(row_channels[row] for row in STAGE_ENDS)
        self.strides = tuple(stage_strides(plan)[1 + row] for row in STAGE_ENDS)
        init_weights(self)
        set_batch_norm(self, eps=eps, momentum=0.1)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in self._ends:
                stages.append(x)
        return stages


mobilenet_v2 = partial(MobileNetV2, BLOCKS)
