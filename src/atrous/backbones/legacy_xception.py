"""Xception as it was first published, with max pools; timm calls it legacy_xception.

Chollet. Xception: deep learning with depthwise separable convolutions. CVPR 2017. arXiv 1610.02357 (Fig. 5).

    entry flow     conv 32 /2 -> conv 64 -> block 128 /2 -> block 256 /2 -> block 728 /2
    middle flow    8 x block 728
    exit flow      block 728 1024 /2 -> separable 1536, 2048

    block    x -> [ReLU, separable] x2 or x3 -> max pool 3x3 /s --(+)     separable = 3x3 depthwise, 1x1, BN
             x -> (1x1 /s, BN where shapes differ) ---------------(+)

DeepLab v3+ has the modified aligned Xception instead (xception.py): strided convolutions for the pools, more of
them, batch norm inside. Parameter names are Cadene's and timm's, so their state dicts load as they are.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from atrous.backbones.base import Backbone, block_rates, init_weights, stage_strides
from atrous.errors import InputError, choose
from atrous.layers import BatchNorm2d, Dilated, dilate

STEM_CHANNELS = (32, 64)
STEM_STRIDE = 2

# paper, Fig. 5; the stride is that of the max pool at the end
ENTRY = (((128, 128), 2), ((256, 256), 2), ((728, 728), 2))
MIDDLE = (((728, 728, 728), 1),) * 8
EXIT = (((728, 1024), 2),)
BLOCKS: tuple[tuple[tuple[int, ...], int], ...] = ENTRY + MIDDLE + EXIT
STAGE_ENDS = (0, 1, len(BLOCKS) - 2)  # the last blocks at strides 4, 8, 16
LAST_CHANNELS = (1536, 2048)


class SeparableConv(nn.Module):
    """3x3 depthwise and 1x1, nothing between."""

    def __init__(self, in_channels: int, channels: int, rate: int, padding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, in_channels, 3, padding=padding, dilation=rate, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.conv1(x))
        return y


class MaxPool(nn.Module):
    """3x3 at any rate: (N, C, H, W) -> (N, C, H/s, W/s). torch's own pads by 1 at most."""

    def __init__(self, stride: int, rate: int) -> None:
        super().__init__()
        self.stride, self.rate = stride, rate

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, [self.rate] * 4, value=float("-inf"))
        return F.max_pool2d(x, 3, self.stride, dilation=self.rate)


class Block(nn.Module):
    """(N, C_in, H, W) -> (N, C, H/s, W/s)."""

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], plan: Dilated, rate: int, relu: bool, pool: bool
    ) -> None:
        """relu: the block begins with one. pool: it ends with one, with what is left of its stride."""
        super().__init__()
        self.skip: nn.Conv2d | None = None
        self.skipbn: BatchNorm2d | None = None
        if pool or in_channels != channels[-1]:
            self.skip = nn.Conv2d(in_channels, channels[-1], 1, plan.stride, bias=False)
            self.skipbn = BatchNorm2d(channels[-1])
        layers: list[nn.Module] = []
        inner = in_channels
        for i, c in enumerate(channels):
            if i or relu:
                layers.append(nn.ReLU(inplace=i > 0))
            layers += [SeparableConv(inner, c, rate, padding=rate), BatchNorm2d(c)]
            inner = c
        if pool:
            layers.append(MaxPool(plan.stride, rate))
        self.rep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rep(x)
        if self.skip is not None and self.skipbn is not None:
            x = self.skipbn(self.skip(x))
        return y + x


class LegacyXception(Backbone):
    """(N, in_channels, H, W) -> five maps: channels (64, 128, 256, 728, 2048), strides (2, 4, 8, 16, 32).

    Strides beyond `output_stride` stay at it.
    """

    def __init__(
        self,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        dilate_from: Literal["second", "first"] = "second",
        relu_features: bool = True,
        pad_stem: bool = True,
        pad_exit: int | None = None,
        last_bn: bool = True,
        last_relu: bool = True,
        encoder_depth: int = 5,
    ) -> None:
        """
        output_stride  32, 16, 8 (also 4, 2)
        dilate_from    "second": a block that lost its stride keeps the old rate, in its pool too; "first": it has
                       the new rate and no pool (VainF)
        relu_features  the features at strides 4 .. 16 are taken after the ReLU (timm), or before it (VainF)
        pad_stem       False: the stem's two 3x3 convolutions have no zeros around (the paper, Cadene, timm, VainF)
        pad_exit       zeros around the last two 3x3 convolutions. None: as many as their rate; 1: VainF, whose
                       map shrinks
        last_bn        False: the last map is that of the last convolution, without BN and ReLU (VainF)
        last_relu      False: the last map is that of the last BN (segmentation_models)
        encoder_depth  the stages that are run and give features, 2 .. 5; those behind only keep their weights
                       (segmentation_models)

        Without the zeros the maps are smaller than H / stride, and tiny pictures vanish: `forward` then raises
        InputError. So does an output stride the network cannot have.
        """
        super().__init__()
        choose("dilate_from", dilate_from, ("second", "first"))
        plan = dilate((STEM_STRIDE, *(stride for _, stride in BLOCKS)), output_stride)
        c1, c2 = STEM_CHANNELS
        zeros = int(pad_stem)
        self.conv1 = nn.Conv2d(in_channels, c1, 3, plan[0].stride, zeros, bias=False)
        self.bn1 = BatchNorm2d(c1)
        self.conv2 = nn.Conv2d(c1, c2, 3, padding=zeros, bias=False)
        self.bn2 = BatchNorm2d(c2)
        self.relu = nn.ReLU()

        blocks = []
        widths = [c2]
        for i, ((channels, stride), layer) in enumerate(zip(BLOCKS, plan[1:], strict=True)):
            rate = block_rates(layer, 1, dilate_from)[0]
            pool = stride > 1 and (dilate_from == "second" or layer.stride > 1)
            blocks.append(Block(widths[-1], channels, layer, rate, relu=i > 0, pool=pool))
            widths.append(channels[-1])
            self.add_module(f"block{i + 1}", blocks[-1])

        c3, c4 = LAST_CHANNELS
        rate = plan[-1].dilation
        zeros = rate if pad_exit is None else pad_exit
        self.conv3 = SeparableConv(widths[-1], c3, rate, zeros)
        self.bn3 = BatchNorm2d(c3)
        self.conv4 = SeparableConv(c3, c4, rate, zeros)
        if last_bn:
            self.bn4 = BatchNorm2d(c4)

        self._last_bn, self._relu_features = last_bn, relu_features
        self._last_relu = last_relu
        self.channels = (c2, *(widths[i + 1] for i in STAGE_ENDS), c4)
        strides = stage_strides(plan)
        self.strides = (*(strides[i] for i in (0, *(i + 1 for i in STAGE_ENDS))), strides[-1])
        exits = [blocks[-1], self.conv3, self.bn3, self.conv4, *([self.bn4] if last_bn else [])]
        between = [*blocks[:1], *blocks[1:2], nn.ModuleList(blocks[2:-1]), nn.ModuleList(exits)]
        self.keep_stages(encoder_depth, between)
        last = 1 + 4 * (rate - zeros)  # the least points on the last grid, and behind the stem
        behind_stem = (max(last, 1) - 1) * (output_stride // plan[0].stride) + 1
        self.smallest = 2 * behind_stem + 5 if not pad_stem else 2 * behind_stem - 1
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < self.smallest:
            raise InputError(
                f"a picture of {x.shape[-2]}x{x.shape[-1]} is too small for this form of the legacy Xception: "
                f"its sides need {self.smallest} pixels"
            )
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        stages = [x]
        for i in range(len(BLOCKS)):
            if len(stages) == len(self.channels):
                return stages
            x = getattr(self, f"block{i + 1}")(x)
            if i in STAGE_ENDS:
                stages.append(self.relu(x) if self._relu_features else x)
        x = self.conv4(self.relu(self.bn3(self.conv3(x))))
        x = self.bn4(x) if self._last_bn else x
        return [*stages, self.relu(x) if self._last_bn and self._last_relu else x]


legacy_xception = LegacyXception
