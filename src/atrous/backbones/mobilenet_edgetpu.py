"""MobileNetEdgeTPU up to its last 1x1 convolution (1280 channels), with atrous depthwise convolution.

Howard, Gupta. Introducing the next generation of on-device vision models: MobileNetV3 and MobileNetEdgeTPU. Google AI
blog, 2019. The network itself: V3_EDGETPU in tensorflow/models, research/slim/nets/mobilenet/mobilenet_v3.py.

    fused block    x -> k x k, e*c -----------------------> 1x1, c --(+)    BN after each, ReLU after all
    block          x -> 1x1, e*c -> k x k depthwise /s ---> 1x1, c --(+)    but the last
                   x -- in all blocks of a row but the first --------(+)

A plain convolution keeps that chip busier than a depthwise one, so the early rows are fused. There is no squeeze-excite
and no swish. As in Google's DeepLab on it, the 1x1 to 1280 channels belongs to the features.
"""

from __future__ import annotations

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
from atrous.layers import Add, Padding, conv_bn_act, dilate

STEM_CHANNELS = 32

# fused k  e   c   n  s    kernel, expansion, channels, blocks, stride; all blocks but the first expand by 4
BLOCKS = (
    (True, 3, 1, 16, 1, 1),
    (True, 3, 8, 32, 4, 2),
    (True, 3, 8, 48, 4, 2),
    (False, 3, 8, 96, 4, 2),
    (False, 3, 8, 96, 4, 1),
    (False, 5, 8, 160, 4, 2),
    (False, 3, 8, 192, 1, 1),
)
EXPANSION = 4
STAGE_ENDS = (0, 1, 2, 4)  # the last rows at strides 2, 4, 8, 16; the fifth stage ends with the last 1x1


class Block(nn.Module):
    """(N, C_in, H, W) -> (N, C, H/s, W/s). An expansion of 1 leaves the last 1x1 alone, as in slim."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        expansion: int,
        stride: int,
        rate: int,
        *,
        fused: bool,
        shortcut: bool,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = shortcut
        self.add = Add()
        self.conv = nn.Sequential()
        if expansion != 1:
            wide_in, groups = (in_channels, 1) if fused else (hidden, hidden)
            if not fused:
                self.conv.append(conv_bn_act(in_channels, hidden, 1))
            self.conv.append(
                conv_bn_act(
                    wide_in, hidden, kernel_size, stride=stride, dilation=rate, groups=groups, padding=padding
                )
            )
        self.conv.append(conv_bn_act(hidden, channels, 1, act=None))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return self.add(x, y) if self.shortcut else y


class MobileNetEdgeTPU(Backbone):
    """(N, in_channels, H, W) -> five maps: channels (16, 32, 48, 96, 1280), strides (2, 4, 8, 16, 32).

    Strides beyond `output_stride` stay at it.
    """

    def __init__(
        self,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        width: float = 1.0,
        last_channels: int = 1280,
        dilate_from: DilateFrom = "second",
        padding: Padding = "symmetric",
        eps: float = 1e-3,
    ) -> None:
        """
        output_stride  32, 16, 8 (also 4, 2)
        width          multiplier of all channels but the last
        last_channels  of the 1x1 behind the blocks
        dilate_from    "second": Google's; "first", "next": see `base.block_rates`
        padding        "same": TensorFlow's, for weights from there
        eps            of the batch norms

        Raises InputError for an output stride the network cannot have.
        """
        super().__init__()
        choose("padding", padding, ("symmetric", "same"))
        plan = dilate((2, *(s for *_, s in BLOCKS)), output_stride)
        channels = make_divisible(STEM_CHANNELS * width)
        self.features = nn.Sequential(
            conv_bn_act(in_channels, channels, 3, stride=plan[0].stride, padding=padding)
        )
        ends, row_channels = [], []
        for (fused, k, e, c, n, _), row in zip(BLOCKS, plan[1:], strict=True):
            out = make_divisible(c * width)
            for i, rate in enumerate(block_rates(row, n, dilate_from)):
                stride, expansion = (1, EXPANSION) if i else (row.stride, e)
                shape = channels, out, k, expansion, stride, rate
                self.features.append(Block(*shape, fused=fused, shortcut=i > 0, padding=padding))
                channels = out
            ends.append(len(self.features) - 1)
            row_channels.append(out)
        self.features.append(conv_bn_act(channels, last_channels, 1))

        strides = stage_strides(plan)
        self._ends = (*(ends[row] for row in STAGE_ENDS), len(self.features) - 1)
        self.channels = (*(row_channels[row] for row in STAGE_ENDS), last_channels)
        self.strides = (*(strides[1 + row] for row in STAGE_ENDS), strides[-1])
        init_weights(self)
        set_batch_norm(self, eps=eps, momentum=0.003)  # slim's decay of 0.997

    def forward(self, x: Tensor) -> list[Tensor]:
        return run_stages(self.features, self._ends, x)


mobilenet_edgetpu = MobileNetEdgeTPU
