"""Depthwise convolutions with gradients that are quick, and right, on a CPU.

oneDNN, which computes torch's convolutions there, has no fast code for two gradients, and one of them can be wrong:
that of the weights in bfloat16 is garbage at a rate above 1 on maps wider than a vector register, and at any rate on
maps narrower than the kernel (oneDNN 3.12, torch 2.14). Both are convolutions that it has good code for: training takes
those.

    gradients at a rate r                a convolution without a rate, on each of the r * r grids of every r-th pixel
    gradient of the input at a stride    a convolution of the gradient with zeros between, the kernel turned round
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from atrous.layers import in_float32

MOST_WORK = 3  # times the pixels of the map that its grids may have once zeros enlarge them to the kernel


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with as many groups as channels, and a square kernel."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        stride, rate, kernel, zeros = (
            self.stride[0],
            self.dilation[0],
            self.kernel_size[0],
            int(self.padding[0]),
        )
        height, width = x.shape[-2:]
        if stride == 1 and rate > 1 and zeros % rate == 0:
            # grids smaller than the kernel are slow, too: zeros enlarge them, where that is not most of the work
            rows, columns = (max(kernel, -(-side // rate)) for side in (height, width))
            if rows * columns * rate**2 <= MOST_WORK * height * width:
                return self._by_phases(x, rows, columns)
        if rate == 1 and min(height, width) >= kernel:
            quick = stride > 1 and kernel % 2 == 1 and zeros == kernel // 2 and self.bias is None
            return self._strided(x) if quick else super().forward(x)
        return in_float32(self, x)  # whose gradient is right

    def _by_phases(self, x: Tensor, rows: int, columns: int) -> Tensor:
        rate, zeros = self.dilation[0], int(self.padding[0])
        height, width = x.shape[-2:]
        x = F.pad(x, (0, columns * rate - width, 0, rows * rate - height))
        y = F.conv2d(phases(x, rate), self.weight, self.bias, padding=zeros // rate, groups=self.groups)
        lost = rate * (self.kernel_size[0] - 1) - 2 * zeros
        return from_phases(y, rate)[..., : height - lost, : width - lost]

    def _strided(self, x: Tensor) -> Tensor:
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x, weight = x.to(kind), weight.to(kind)
        if x.dtype != torch.bfloat16:  # float32 has fast code
            return super().forward(x)
        y: Tensor = Strided.apply(x, weight, self.stride[0])
        return y


def phases(x: Tensor, rate: int) -> Tensor:
    """(N, C, h * r, w * r) to (N * r * r, C, h, w), the grids of every r-th pixel; in memory channels come last."""
    batch, channels, height, width = x.shape
    grid = x.permute(0, 2, 3, 1).reshape(batch, height // rate, rate, width // rate, rate, channels)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def from_phases(x: Tensor, rate: int) -> Tensor:
    """The way back from `phases`."""
    _, channels, rows, columns = x.shape
    grid = x.permute(0, 2, 3, 1).reshape(-1, rate, rate, rows, columns, channels)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Strided(torch.autograd.Function):
    """Depthwise convolution (N, C, H, W) with a stride, `padding=kernel // 2`, odd kernels."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), stride, gradient = context.saved_tensors, context.stride, gradients[0]
        zeros = weight.shape[-1] // 2
        of_x = of_weight = None
        if context.needs_input_grad[0]:
            spread = torch.zeros_like(x)
            spread[..., ::stride, ::stride] = gradient
            of_x = F.conv2d(spread, weight.flip(2, 3), None, 1, zeros, groups=len(weight))
        if context.needs_input_grad[1]:
            of_weight = conv2d_weight(x, weight.shape, gradient, stride, zeros, groups=len(weight))
        return of_x, of_weight, None


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Such as `DepthwiseConv2d` can compute."""
    kernel, stride, rate, zeros = conv.kernel_size[0], conv.stride[0], conv.dilation[0], conv.padding[0]
    sides = (conv.kernel_size, conv.stride, conv.dilation, conv.padding)
    square = sides == ((kernel, kernel), (stride, stride), (rate, rate), (zeros, zeros))
    return (
        square and conv.padding_mode == "zeros" and conv.groups == conv.in_channels == conv.out_channels > 1
    )
