"""Dilated residual networks, C and D: output stride 8, with degridding layers at the end.

Yu, Koltun, Funkhouser. Dilated residual networks. CVPR 2017. arXiv 1705.09914 (sec. 4, Fig. 5).

    level      1     2    3     4     5     6      7           8
    stride     1     2    4     8     8     8      8           8
    rate       1     1    1     1     2     4      2           1
    channels   16    32   64    128   256   512    512         512
    C          basic basic residual blocks.....    basic blocks without the sum
    D          convs convs residual blocks.....    convs

Levels 3 to 6 have four times the channels with bottlenecks. Levels 7 and 8 take away the grid pattern that
the rates leave behind. ResNet's max pool is gone: levels 1 and 2 stand in for it. Five maps come out: levels
2, 3, 4, 5 and 8.
Parameter names are those of the authors' code, so their weight files load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from atrous.backbones.base import Backbone, init_weights, stage_strides
from atrous.backbones.resnet import BasicBlock, Bottleneck, make_stage
from atrous.errors import InputError
from atrous.layers import BatchNorm2d, conv_bn_act, dilate

STRIDES = (1, 2, 2, 2, 2, 2)  # of levels 1 .. 6; levels 5 and 6 dilate instead
CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)
OUTPUT_STRIDE = 8


class PlainBlock(nn.Module):
    """A basic block without its shortcut: two 3x3 convolutions (sec. 4, "removing residual connections")."""

    def __init__(self, in_channels: int, channels: int, rate: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


def plain_blocks(in_channels: int, channels: int, blocks: int, rate: int) -> nn.Sequential:
    """Levels 7 and 8 of DRN-C."""
    inputs = [in_channels] + [channels] * (blocks - 1)
    return nn.Sequential(*(PlainBlock(c, channels, rate) for c in inputs))


def convs(in_channels: int, channels: int, blocks: int, stride: int, rate: int) -> nn.Sequential:
    """Levels 1, 2, 7 and 8 of DRN-D: `blocks` times 3x3 convolution, batch norm, ReLU, in one row."""
    level = nn.Sequential()
    for _ in range(blocks):
        level.extend(conv_bn_act(in_channels, channels, 3, stride=stride, dilation=rate))
        in_channels, stride = channels, 1
    return level


class DRN(Backbone):
    """(N, in_channels, H, W) -> five maps (levels 2, 3, 4, 5, 8) at strides (2, 4, 8, 8, 8).

    Channels (32, 64, 128, 256, 512) with basic blocks, (32, 256, 512, 1024, 512) with bottlenecks.
    """

    def __init__(
        self,
        architecture: str,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        output_stride: int = 8,
        in_channels: int = 3,
    ) -> None:
        """`architecture` is "C" or "D"; `blocks` counts the blocks (or convolutions) of levels 1 .. 8.

        Raises InputError for an output stride other than 8.
        """
        super().__init__()
        if output_stride != OUTPUT_STRIDE:
            raise InputError(f"a DRN keeps stride 8 by design: give output_stride=8, not {output_stride}")
        plan = dilate(STRIDES, output_stride)
        rates = [level.dilation for level in plan]
        c1, c2, c3, c4, c5, c6, c7, c8 = CHANNELS
        self.architecture = architecture
        self.relu = nn.ReLU(inplace=True)

        if architecture == "C":
            self.conv1 = nn.Conv2d(in_channels, c1, 7, padding=3, bias=False)
            self.bn1 = BatchNorm2d(c1)
            self.layer1 = make_stage(BasicBlock, c1, c1, blocks[0], plan[0])
            self.layer2 = make_stage(BasicBlock, c1, c2, blocks[1], plan[1])
        else:
            self.layer0 = conv_bn_act(in_channels, c1, 7)
            self.layer1 = convs(c1, c1, blocks[0], plan[0].stride, rates[0])
            self.layer2 = convs(c1, c2, blocks[1], plan[1].stride, rates[1])

        # levels 5 and 6 have the new rate from their first convolution on
        level = partial(make_stage, block, dilate_from="first")
        c3_out, c4_out, c5_out, c6_out = (c * block.expansion for c in (c3, c4, c5, c6))
        self.layer3 = level(c2, c3, blocks[2], plan[2])
        self.layer4 = level(c3_out, c4, blocks[3], plan[3])
        self.layer5 = level(c4_out, c5, blocks[4], plan[4])
        self.layer6 = level(c5_out, c6, blocks[5], plan[5])

        # degridding: down again, with the rates of levels 5 and 4
        if architecture == "C":
            self.layer7 = plain_blocks(c6_out, c7, blocks[6], rates[4])
            self.layer8 = plain_blocks(c7, c8, blocks[7], rates[3])
        else:
            self.layer7 = convs(c6_out, c7, blocks[6], 1, rates[4])
            self.layer8 = convs(c7, c8, blocks[7], 1, rates[3])

        self.channels = (c2, c3_out, c4_out, c5_out, c8)
        self.strides = (*stage_strides(plan)[1:5], output_stride)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        level0 = self.relu(self.bn1(self.conv1(x))) if self.architecture == "C" else self.layer0(x)
        level2 = self.layer2(self.layer1(level0))
        level3 = self.layer3(level2)
        level4 = self.layer4(level3)
        level5 = self.layer5(level4)
        level8 = self.layer8(self.layer7(self.layer6(level5)))
        return [level2, level3, level4, level5, level8]


# paper, Table 1 and the authors' code      level  1  2  3  4  5   6  7  8
drn_c_26 = partial(DRN, "C", BasicBlock, (1, 1, 2, 2, 2, 2, 1, 1))
drn_c_42 = partial(DRN, "C", BasicBlock, (1, 1, 3, 4, 6, 3, 1, 1))
drn_c_58 = partial(DRN, "C", Bottleneck, (1, 1, 3, 4, 6, 3, 1, 1))
drn_d_22 = partial(DRN, "D", BasicBlock, (1, 1, 2, 2, 2, 2, 1, 1))
drn_d_24 = partial(DRN, "D", BasicBlock, (1, 1, 2, 2, 2, 2, 2, 2))
drn_d_38 = partial(DRN, "D", BasicBlock, (1, 1, 3, 4, 6, 3, 1, 1))
drn_d_54 = partial(DRN, "D", Bottleneck, (1, 1, 3, 4, 6, 3, 1, 1))
drn_d_105 = partial(DRN, "D", Bottleneck, (1, 1, 3, 4, 23, 3, 1, 1))
