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
from itertools import pairwise
from typing import Literal

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
from atrous.layers import Add, BatchNorm2d, Padding, conv_bn_act, dilate

STEM_CHANNELS = 32
LAST_CHANNELS = 1280

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
LOW_LEVEL_ROW = 1  # at stride 4


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
        self.add = Add()
        self.conv.extend([depthwise, nn.Conv2d(hidden, channels, 1, bias=False), BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x, self.expand(x))

    def expand(self, x: Tensor) -> Tensor:
        """The wide features behind the depthwise convolution, (N, t * C_in, H/s, W/s)."""
        y = F.pad(x, [self.padding] * 4) if self.padding else x
        for layer in self.conv[:-2]:
            y = layer(y)
        return y

    def project(self, x: Tensor, wide: Tensor) -> Tensor:
        """The block's output from its input and its wide features."""
        y: Tensor = self.conv[-1](self.conv[-2](wide))
        return self.add(x, y) if self.shortcut else y


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
        divisible_by: int = 8,
        low_level_features: Literal["block", "depthwise"] = "block",
        dilate_from: DilateFrom = "second",
        pad_input: bool = False,
        pad_stem: bool = True,
        padding: Padding = "symmetric",
        eps: float = 1e-5,
        last_conv: bool = False,
        encoder_depth: int = 5,
    ) -> None:
        """
        output_stride  32, 16, 8 (also 4, 2)
        width          the paper's width multiplier: 0.35, 0.5, 0.75, 1, 1.4
        divisible_by   channels are multiples of this; 1 in Google's DeepLab at widths other than 1
        low_level_features  "depthwise": the stage at stride 4 is the wide map inside its last block, 144 channels at
                       width 1 (Google's DeepLab v3+); "block": that block's output
        dilate_from    "second": Google, timm, VainF; "first": the whole row has the new rate
                       (segmentation_models); "next": the new rate begins with the next row (jfzhang95);
                       "only_first": only the first block of a row has a rate (mmsegmentation)
        pad_input      the zeros of the 3x3 are put around the block's input instead, so that the 1x1 before
                       it turns them into its bias (jfzhang95, VainF)
        pad_stem       False: the first convolution has no zeros around, every map begins a pixel further in (VainF)
        padding        "same": TensorFlow's, for weights from there (excludes pad_input)
        eps            of the batch norms: 1e-5 (torchvision, timm), 1e-3 (Google)
        last_conv      the fifth map comes behind the classifier's 1x1 convolution, 1280 channels (segmentation_models)
        encoder_depth  the stages that are run and give features, 2 .. 5; those behind only keep their weights
                       (segmentation_models)

        Raises InputError for an output stride the network cannot have, and for both paddings at once.
        """
        super().__init__()
        if choose("padding", padding, ("symmetric", "same")) == "same" and pad_input:
            raise InputError('padding="same" and pad_input=True exclude each other')
        if padding == "same" and not pad_stem:
            raise InputError('padding="same" and pad_stem=False exclude each other')
        choose("low_level_features", low_level_features, ("block", "depthwise"))
        plan = dilate((2, *(s for *_, s in blocks)), output_stride)
        channels = make_divisible(STEM_CHANNELS * width, divisible_by)
        self.features = nn.Sequential(
            conv_bn_act(in_channels, channels, 3, stride=plan[0].stride, padding=padding, act=nn.ReLU6)
        )
        if not pad_stem:
            self.features[0][0].padding = (0, 0)  # type: ignore[index]
        ends, row_channels = [], []
        for (t, c, n, s), row in zip(blocks, plan[1:], strict=True):
            out = make_divisible(c * width, divisible_by)
            for i, rate in enumerate(block_rates(row, n, dilate_from)):
                stride = row.stride if i == 0 else 1
                shortcut = (i > 0 or s == 1) and channels == out  # as in the plain network
                self.features.append(
                    InvertedResidual(channels, out, t, stride, rate, shortcut, pad_input, padding)
                )
                channels = out
            ends.append(len(self.features) - 1)
            row_channels.append(out)

        if last_conv:
            row_channels[-1], ends[-1] = LAST_CHANNELS, len(self.features)
            self.features.append(conv_bn_act(channels, LAST_CHANNELS, 1, act=nn.ReLU6))

        self._ends = tuple(ends[row] for row in STAGE_ENDS)
        self._wide = ends[LOW_LEVEL_ROW] if low_level_features == "depthwise" else -1
        if low_level_features == "depthwise":
            row_channels[LOW_LEVEL_ROW] *= blocks[LOW_LEVEL_ROW][0]
        self.channels = tuple(row_channels[row] for row in STAGE_ENDS)
        self.strides = tuple(stage_strides(plan)[1 + row] for row in STAGE_ENDS)
        self.keep_stages(encoder_depth, [self.features[a + 1 : b + 1] for a, b in pairwise(self._ends)])
        init_weights(self)
        set_batch_norm(self, eps=eps, momentum=0.1)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages: list[Tensor] = []
        for i, block in enumerate(self.features):
            if len(stages) == len(self.channels):
                break
            if i == self._wide:
                wide = block.expand(x)  # type: ignore[operator]
                x = block.project(x, wide)  # type: ignore[operator]
                stages.append(wide)
                continue
            x = block(x)
            if i in self._ends:
                stages.append(x)
        return stages


mobilenet_v2 = partial(MobileNetV2, BLOCKS)
