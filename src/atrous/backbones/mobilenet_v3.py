"""MobileNetV3-Large up to its last 1x1 convolution (960 channels), with atrous depthwise convolution.

Howard et al. Searching for MobileNetV3. ICCV 2019. arXiv 1905.02244 (segmentation: sec. 6.4).

    block    x -> 1x1, expanded -> k x k depthwise /s -> squeeze-excite -> 1x1, out --(+)    BN after each
             x -- where s = 1 and the channels agree ---------------------------------(+)    convolution

As in torchvision's deeplabv3_mobilenet_v3_large: the 1x1 to 960 channels belongs to the features, and at
output stride 16 the block that lost its stride has the new rate already. Parameter names are torchvision's,
so its state dict loads as it is.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from atrous.backbones.base import (
    Backbone,
    DilateFrom,
    block_rates,
    init_weights,
    run_stages,
    set_batch_norm,
    stage_strides,
)
from atrous.backbones.mobilenet_v2 import make_divisible
from atrous.errors import choose
from atrous.layers import conv_bn_act, dilate, map_mean

STEM_CHANNELS = 16
RE, HS = nn.ReLU, nn.Hardswish

# paper, Table 1
#   k  exp  out   SE    act s
BLOCKS = (
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
LAST_CHANNELS = 960  # the 1x1 after the blocks
# the rows of each stage at strides 2, 4, 8, 16 that give its map; the fifth stage ends with the last 1x1
STAGE_ROWS = {"last": (0, 2, 5, 11), "first": (0, 1, 3, 6)}


class SqueezeExcite(nn.Module):
    """x * hard_sigmoid(W2 relu(W1 mean(x))), a quarter of the channels in between (paper, sec. 5.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = make_divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = map_mean(x)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(mean))))


class Block(nn.Module):
    """Paper, Fig. 4: (N, C_in, H, W) -> (N, C, H/s, W/s)."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        expanded: int,
        channels: int,
        squeeze_excite: bool,
        act: type[nn.Module],
        stride: int,
        rate: int,
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == channels
        self.block = nn.Sequential()
        if expanded != in_channels:
            self.block.append(conv_bn_act(in_channels, expanded, 1, act=act))
        self.block.append(
            conv_bn_act(
                expanded, expanded, kernel_size, stride=stride, dilation=rate, groups=expanded, act=act
            )
        )
        if squeeze_excite:
            self.block.append(SqueezeExcite(expanded))
        self.block.append(conv_bn_act(expanded, channels, 1, act=None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.shortcut else y


class MobileNetV3(Backbone):
    """(N, in_channels, H, W) -> five maps: channels (16, 24, 40, 112, 960), strides (2, 4, 8, 16, 32).

    Strides beyond `output_stride` stay at it.
    """

    def __init__(
        self,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        dilate_from: DilateFrom = "first",
        stage_features: Literal["last", "first"] = "last",
    ) -> None:
        """
        output_stride  32, 16, 8 (also 4, 2)
        dilate_from    "first": torchvision; "second": the depthwise convolution that lost its stride keeps
                       the old rate (timm); "next" is the same here, where a row is one block
        stage_features  which block of a stage its map comes from: its last, or its first (torchvision's DeepLab, whose
                       auxiliary head reads it), with 80 channels at stride 16

        Raises InputError for an output stride the network cannot have.
        """
        super().__init__()
        plan = dilate((2, *(s for *_, s in BLOCKS)), output_stride)
        self.features = nn.Sequential(
            conv_bn_act(in_channels, STEM_CHANNELS, 3, stride=plan[0].stride, act=HS)
        )
        channels = STEM_CHANNELS
        for (k, expanded, out, se, act, _), row in zip(BLOCKS, plan[1:], strict=True):
            rate = block_rates(row, 1, dilate_from)[0]
            self.features.append(Block(channels, k, expanded, out, se, act, row.stride, rate))
            channels = out
        self.features.append(conv_bn_act(channels, LAST_CHANNELS, 1, act=HS))

        strides = stage_strides(plan)
        rows = STAGE_ROWS[choose("stage_features", stage_features, STAGE_ROWS)]
        self._ends = (*(1 + row for row in rows), len(self.features) - 1)
        self.channels = (*(BLOCKS[row][2] for row in rows), LAST_CHANNELS)
        self.strides = (*(strides[1 + row] for row in rows), strides[-1])
        init_weights(self)
        set_batch_norm(self, eps=1e-3, momentum=0.01)  # torchvision's

    def forward(self, x: Tensor) -> list[Tensor]:
        return run_stages(self.features, self._ends, x)


mobilenet_v3_large = MobileNetV3
