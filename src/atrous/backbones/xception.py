"""Modified aligned Xception 41, 65, 71, the strongest encoder of DeepLab v3+.

Chen, Zhu, Papandreou, Schroff, Adam. Encoder-decoder with atrous separable convolution for semantic image
segmentation. ECCV 2018. arXiv 1802.02611 (sec. 3.2, Fig. 4).
Chollet. Xception: deep learning with depthwise separable convolutions. CVPR 2017. arXiv 1610.02357.

    entry flow     conv 32 /2 -> conv 64 -> block 128 /2 -> block 256 /2 -> block 728 /2
    middle flow    16 x block 728
    exit flow      block 728 1024 1024 /2 -> separable 1536, 1536, 2048 (no shortcut)

    block    x -> [ReLU, separable] x3 (the third /s) --(+)     separable = 3x3 depthwise, BN, 1x1, BN
             x -> (1x1 /s, BN where shapes differ) -----(+)

The features at strides 2 .. 16 are taken inside a strided block, before its third separable convolution: at
stride 4 the 256 low-level channels of the v3+ decoder, as in Google's code and in timm. In both, as here,
the ReLU that sec. 3.2 puts after each depthwise convolution is only in the last block, without a shortcut.
jfzhang95's network differs in four places: each is an option.
Parameter names are timm's, so its state dicts of xception41, 65, 71 load as they are.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor, nn

from atrous.backbones.base import Backbone, init_weights, set_batch_norm, stage_strides
from atrous.errors import choose
from atrous.layers import BatchNorm2d, dilate


class Row(NamedTuple):
    """A block of three separable convolutions, `repeat` times; the stride is in the third one."""

    channels: tuple[int, int, int]
    stride: int = 1
    repeat: int = 1
    shortcut: bool = True


STEM_CHANNELS = (32, 64)
STEM_STRIDE = 2

# paper, Fig. 4
ENTRY_65 = (
    Row((128, 128, 128), stride=2),
    Row((256, 256, 256), stride=2),
    Row((728, 728, 728), stride=2),
)
ENTRY_71 = (
    Row((128, 128, 128), stride=2),
    Row((256, 256, 256)),
    Row((256, 256, 256), stride=2),
    Row((728, 728, 728)),
    Row((728, 728, 728), stride=2),
)
MIDDLE_41 = (Row((728, 728, 728), repeat=8),)
MIDDLE_65 = (Row((728, 728, 728), repeat=16),)
EXIT = (
    Row((728, 1024, 1024), stride=2),
    Row((1536, 1536, 2048), shortcut=False),
)


class SeparableConv(nn.Module):
    """3x3 depthwise, BN, 1x1, BN; a ReLU after each BN where `relu`."""

    def __init__(self, in_channels: int, channels: int, stride: int, rate: int, relu: bool) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=rate, dilation=rate, groups=in_channels, bias=False
        )
        self.bn_dw = BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn_pw = BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn_dw(self.conv_dw(x)))
        return self.act(self.bn_pw(self.conv_pw(x)))


class Block(nn.Module):
    """(N, C_in, H, W) -> (N, C_3, H/s, W/s), and what its third convolution reads: (N, C_2, H, W)."""

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int],
        stride: int,
        rates: tuple[int, int, int],
        skip: str,
        relu_features: bool,
        relu_shortcut: bool = False,
        relu_inside: bool = True,
    ) -> None:
        """`skip`: "conv" (a 1x1), "sum" (the identity), "none"; Google's names. The rest: see `Xception`."""
        super().__init__()
        c1, c2, c3 = channels
        self.skip = skip
        self.relu_features = relu_features
        self.relu_shortcut = relu_shortcut
        self.shortcut = ConvBN(in_channels, c3, 1, stride) if skip == "conv" else nn.Identity()
        # with a shortcut the ReLUs stand before the separable convolutions, without one inside them
        inner = skip == "none" and relu_inside
        self.stack = nn.ModuleDict(
            {
                "conv1": SeparableConv(in_channels, c1, 1, rates[0], relu=inner),
                "conv2": SeparableConv(c1, c2, 1, rates[1], relu=inner),
                "conv3": SeparableConv(c2, c3, stride, rates[2], relu=inner),
            }
        )
        self.act = nn.Identity() if inner else nn.ReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(x) if self.relu_shortcut else x
        y = self.stack["conv1"](self.act(x))
        linear = self.stack["conv2"](self.act(y))
        relu = self.act(linear)
        y = self.stack["conv3"](relu)
        y = self.act(y) if self.skip == "none" else y + self.shortcut(x)
        return y, relu if self.relu_features else linear


class ConvBN(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Xception(Backbone):
    """(N, in_channels, H, W) -> five maps: channels (128, 256, 728, 1024, 2048), strides (2, 4, 8, 16, 32).

    Strides beyond `output_stride` stay at it.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        relu_features: bool = True,
        features: Literal["inside", "before"] = "inside",
        relu_shortcut: bool = False,
        exit_relu: Literal["inside", "outside"] = "inside",
        dilate_strided: bool = True,
        eps: float = 1e-3,
    ) -> None:
        """
        output_stride   32, 16, 8 (also 4, 2)
        relu_features   the features at strides 2 .. 16 are taken after the ReLU (timm), or before it (Google)
        features        "inside" a strided block, before its third convolution (Google, timm), or "before" the
                        block: channels (64, 128, 256, 728, 2048) (jfzhang95)
        relu_shortcut   the shortcut, too, begins behind the ReLU (jfzhang95)
        exit_relu       "inside" the last block's separable convolutions (Google, timm), or "outside" them, as
                        in the other blocks (jfzhang95)
        dilate_strided  False: a convolution that lost its stride has rate 1, not the old one (jfzhang95)
        eps             of the batch norms: 1e-3 in Google's and timm's networks, 1e-5 in jfzhang95's

        Raises InputError for an output stride the network cannot have, and for an unknown form.
        """
        super().__init__()
        choose("features", features, ("inside", "before"))
        choose("exit_relu", exit_relu, ("inside", "outside"))
        blocks = [row for row in rows for _ in range(row.repeat)]
        plan = dilate((STEM_STRIDE, *(row.stride for row in blocks)), output_stride)
        strides = stage_strides(plan)
        c1, c2 = STEM_CHANNELS
        self.stem = nn.Sequential(ConvBN(in_channels, c1, 3, plan[0].stride), ConvBN(c1, c2, 3))
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList()
        channels = c2
        for row, layer in zip(blocks, plan[1:], strict=True):
            # a block keeps its 1x1 shortcut where the stride of the plain network went
            skip = "conv" if row.stride > 1 or row.channels[-1] != channels else "sum"
            skip = skip if row.shortcut else "none"
            # the stride is in the third convolution: all three are still on the old grid
            rate = layer.first_dilation
            rates = (rate, rate, 1 if row.stride > 1 and not dilate_strided else rate)
            forms = (relu_features, relu_shortcut, exit_relu == "inside")
            self.blocks.append(Block(channels, row.channels, layer.stride, rates, skip, *forms))
            channels = row.channels[-1]

        self._strided = tuple(i for i, row in enumerate(blocks) if row.stride > 1)
        self._before = features == "before"
        self._relu_features = relu_features
        widths = [blocks[i].channels[1] for i in self._strided]
        if self._before:
            widths = [blocks[i - 1].channels[-1] if i else c2 for i in self._strided]
        self.channels = (*widths, channels)
        self.strides = (*(strides[i] for i in self._strided), strides[-1])  # strides[i]: before block i
        init_weights(self)
        set_batch_norm(self, eps=eps, momentum=0.1)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = []
        for conv in self.stem:
            x = self.relu(conv(x))
        for i, block in enumerate(self.blocks):
            if i in self._strided and self._before:
                stages.append(self.relu(x) if self._relu_features else x)
            x, inside = block(x)
            if i in self._strided and not self._before:
                stages.append(inside)
        return [*stages, x]


xception41 = partial(Xception, ENTRY_65 + MIDDLE_41 + EXIT)
xception65 = partial(Xception, ENTRY_65 + MIDDLE_65 + EXIT)
xception71 = partial(Xception, ENTRY_71 + MIDDLE_65 + EXIT)
