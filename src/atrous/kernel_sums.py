"""Weights on the grid of int8 whose kernels keep their sums.

A map is nearly flat almost everywhere, so a k x k kernel answers there with the sum of its weights. Nine roundings to
the nearest may add up to several steps; a depthwise convolution has nothing else to average them out, and one of them
can move a whole network's scores by 12 % (MobileNetV2's first). Here as many of a kernel's weights are rounded up as
keep the sum within half a step: those nearest above (the method of largest remainders).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

LARGEST = 127  # int8, the same grid on both sides of 0
Network = TypeVar("Network", bound=nn.Module)


def keep_kernel_sums(network: Network) -> Network:
    """The network with the spatial kernels of its convolutions rounded, in place; batch norm must be folded already.

    Whoever rounds weights to the nearest of -127 .. 127 with a scale for each output finds them on that grid.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.weight[0, 0].numel() > 1:
                module.weight.copy_(rounded(module.weight))
    return network


def rounded(weight: Tensor) -> Tensor:
    """(D, C, k, k) on the grid of each of the D outputs: |weight| at most LARGEST steps."""
    exact = weight.double().flatten(2)
    step = exact.abs().amax((1, 2), keepdim=True) / LARGEST
    step[step == 0] = 1
    below = (exact / step).floor()
    rest = exact / step - below
    ups = rest.sum(2, keepdim=True).round()
    place = rest.argsort(2, descending=True).argsort(2)  # of each weight among the remainders
    return ((below + (place < ups)) * step).view_as(weight).to(weight.dtype)
