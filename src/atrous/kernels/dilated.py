"""Atrous convolutions whose gradient of the weights is quick on a CPU.

The larger its rate, the fewer of a kernel's nine weights meet the map (v3 sec. 3.3): at a rate beyond the map's side
the middle one alone does. oneDNN, which computes torch's convolutions on a CPU, leaves out what meets nothing but zeros
in the output and in the gradient of the input, but not in that of the weights, which gets slower instead (oneDNN 3.12,
torch 2.14). Training takes that gradient weight by weight, each over the part of the map where it meets something.

In bfloat16 oneDNN's can also be wrong: up to NaN on maps wider than 23 whose channels fill no blocks of 16.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

# Share of the kernel's work that meets the map from which on oneDNN's own gradient is as quick: measured from 0.37 to 1
# on maps of 18 to 64 pixels, 128 to 2048 channels.
WHOLE = 0.8
BLOCK = 16  # channels that oneDNN takes together


class DilatedConv2d(nn.Conv2d):
    """`nn.Conv2d` of one group with zeros of its rate around the map, so that the map's size stays."""

    def forward(self, x: Tensor) -> Tensor:
        rate, (height, width), weight, bias = self.dilation[0], x.shape[-2:], self.weight, self.bias
        quick = self.in_channels % BLOCK > 0 or share(height, width, rate) <= WHOLE
        if not (quick and weight.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        y: Tensor = Dilated.apply(x, weight, rate)
        return y if bias is None else y + bias[:, None, None]


def share(height: int, width: int, rate: int) -> float:
    """Of a 3x3 kernel's products on a map, those that do not meet the zeros around it."""
    rows, columns = (side + 2 * max(0, side - rate) for side in (height, width))
    return rows * columns / (9 * height * width)


class Dilated(torch.autograd.Function):
    """Convolution (N, C, H, W) with a kernel (D, C, 3, 3) at a rate, `padding=rate`."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.rate = rate
        return F.conv2d(x, weight, padding=rate, dilation=rate)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), rate, gradient = context.saved_tensors, context.rate, gradients[0]
        of_x = of_weight = None
        if context.needs_input_grad[0]:
            of_x = conv2d_input(x.shape, weight, gradient, padding=rate, dilation=rate)
        if context.needs_input_grad[1]:
            of_weight = weight_gradient(x, gradient, rate)
        return of_x, of_weight, None


def weight_gradient(x: Tensor, gradient: Tensor, rate: int) -> Tensor:
    """Of a 3x3 kernel at a rate: x (N, C, H, W) and the gradient of the output (N, D, H, W) to (D, C, 3, 3)."""
    channels, outputs = x.shape[1], gradient.shape[1]
    found = x.new_zeros(outputs, 3, 3, channels)  # as a channels last kernel lies in memory
    for row, (upper, lower) in enumerate(_meeting(x.shape[2], rate)):
        for column, (left, right) in enumerate(_meeting(x.shape[3], rate)):
            if upper and left:
                found[:, row, column] = _of_one_weight(x[:, :, upper, left], gradient[:, :, lower, right])
    return found.permute(0, 3, 1, 2)


def _meeting(side: int, rate: int) -> list[tuple[slice, slice] | tuple[None, None]]:
    """For each of the three weights along a side: the pixels of the map it meets, and the outputs it does so for."""
    if rate >= side:
        return [(None, None), (slice(None), slice(None)), (None, None)]
    first, last = slice(0, side - rate), slice(rate, side)
    return [(first, last), (slice(None), slice(None)), (last, first)]


def _of_one_weight(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of a 1x1 kernel: (N, C, h, w) and (N, D, h, w) to (D, C)."""
    if x.dtype == torch.bfloat16:  # oneDNN's matrix product is the quicker here, its convolution in float32
        inputs, outputs = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (x, gradient))
        return outputs.T @ inputs
    x, gradient = (part.contiguous(memory_format=torch.channels_last) for part in (x, gradient))
    of_kernel: Tensor = conv2d_weight(x, (gradient.shape[1], x.shape[1], 1, 1), gradient)
    return of_kernel[:, :, 0, 0]


def is_dilated(conv: nn.Conv2d) -> bool:
    """Such as `DilatedConv2d` can compute."""
    rate = conv.dilation[0]
    same = conv.dilation == conv.padding == (rate, rate) and conv.stride == (1, 1)
    return (
        rate > 1 and same and conv.kernel_size == (3, 3) and conv.groups == 1 and conv.padding_mode == "zeros"
    )
