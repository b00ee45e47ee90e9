"""Training a dilated depthwise convolution on a CPU: ordinary convolutions on the phases of the grid.

With rate r, the outputs of rows i, i + r, i + 2r, ... read no other rows, and likewise for columns: the r * r phases of
the map are maps of their own, on which the convolution has rate 1 (the "shift" view of the hole algorithm, DeepLab v1
sec. 3.1). That is a matter of speed: oneDNN has no fast gradient for dilated depthwise convolutions. And of being
right: its gradient of their weights in bfloat16 is garbage on maps that are wider than a vector register
(oneDNN 3.12 with torch 2.14; `tests/test_depthwise.py` compares with float64).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_PHASE = 3  # rows and columns: smaller maps are too many to gain anything


class PhasedConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 and rate above 1 whose gradients are right and fast on a CPU.

    Where the phases would be too small, the convolution is done in float32, whose gradient is right.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        rate = self.dilation[0]
        if min(x.shape[-2:]) < SMALLEST_PHASE * rate:
            with torch.autocast(x.device.type, enabled=False):
                y: Tensor = super().forward(x.float())
            return y.to(x.dtype)
        y = F.conv2d(phases(self._padded(x), rate), self.weight, self.bias, groups=self.groups)
        height, width = (
            side + 2 * p - rate * (k - 1)
            for side, p, k in zip(x.shape[-2:], self.zeros, self.kernel_size, strict=True)
        )
        return from_phases(y, rate)[..., :height, :width]

    @property
    def zeros(self) -> tuple[int, int]:
        """Rows above and below, columns left and right."""
        return int(self.padding[0]), int(self.padding[1])

    def _padded(self, x: Tensor) -> Tensor:
        """With the convolution's zeros around, and behind them as many as make the sides multiples of the rate."""
        rate, (p, q) = self.dilation[0], self.zeros
        below, right = (-(side + 2 * zeros) % rate for side, zeros in zip(x.shape[-2:], (p, q), strict=True))
        return F.pad(x, (q, q + right, p, p + below))


def phases(x: Tensor, rate: int) -> Tensor:
    """(N, C, rate * h, rate * w) -> (N * rate * rate, C, h, w), channels last; `from_phases` undoes it."""
    n, c, height, width = x.shape
    split = x.permute(0, 2, 3, 1).reshape(n, height // rate, rate, width // rate, rate, c)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // rate, width // rate, c).permute(0, 3, 1, 2)


def from_phases(y: Tensor, rate: int) -> Tensor:
    """(N * rate * rate, C, h, w) -> (N, C, rate * h, rate * w), channels last."""
    _, c, h, w = y.shape
    split = y.permute(0, 2, 3, 1).reshape(-1, rate, rate, h, w, c)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(-1, h * rate, w * rate, c).permute(0, 3, 1, 2)


def by_phases(network: nn.Module) -> nn.Module:
    """The network with a `PhasedConv2d` for every dilated depthwise convolution; weights keep their names."""
    for module in network.modules():
        for name, conv in module.named_children():
            if type(conv) is nn.Conv2d and _is_dilated_depthwise(conv):
                module.register_module(name, _phased(conv))
    return network


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    rate = conv.dilation[0]
    plain = conv.stride == (1, 1) and conv.dilation == (rate, rate) and conv.padding_mode == "zeros"
    return plain and rate > 1 and conv.groups == conv.in_channels > 1 and not isinstance(conv.padding, str)


def _phased(conv: nn.Conv2d) -> PhasedConv2d:
    padding, rate = (int(conv.padding[0]), int(conv.padding[1])), conv.dilation[0]
    kernel_size = (conv.kernel_size[0], conv.kernel_size[1])
    with torch.device("meta"):  # its weights are the other's
        phased = PhasedConv2d(
            conv.in_channels,
            conv.out_channels,
            kernel_size,
            1,
            padding,
            rate,
            conv.groups,
            conv.bias is not None,
        )
    phased.weight, phased.bias = conv.weight, conv.bias
    return phased.train(conv.training)
