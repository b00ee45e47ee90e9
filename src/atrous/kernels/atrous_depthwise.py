"""Depthwise convolutions at large rates, for inference on a CPU.

oneDNN, which computes torch's convolutions there, has fast code for depthwise kernels that reach 4 to 6 pixels to a
side. Beyond, as in the pyramid of every separable v3+, it takes 3 to 15 times as long as this loop, and more where only
the middle tap meets the map (oneDNN 3.12, torch 2.14, on processors with AVX-512 and with AVX2 alone).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from atrous.kernels import compiled_loop, openmp
from atrous.kernels.compiled_loop import Loop
from atrous.layers import infers_on_cpu

# Pixels to a side up to which oneDNN's code is fast, by what `torch.backends.cpu.get_cpu_capability` says
FAST_UP_TO = {"AVX512": 6}
FAST_ELSEWHERE = 4
DEPTHWISE_ROWS = Loop("atrous.kernels.atrous_depthwise_kernels", "depthwise_rows")


def available() -> bool:
    """Whether this machine can: torch with OpenMP, and numba."""
    return openmp.available() and compiled_loop.available()


def suits(conv: nn.Conv2d) -> bool:
    """Depthwise, a square odd kernel that reaches far, the map's size kept by zeros, whole vectors of channels."""
    side, rate = conv.kernel_size[0], conv.dilation[0]
    reach = rate * (side // 2)
    same = conv.padding == (reach, reach) and conv.stride == (1, 1) and conv.padding_mode == "zeros"
    square = conv.kernel_size == (side, side) and side % 2 == 1 and conv.dilation == (rate, rate)
    depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.groups % 8 == 0
    fast_up_to = FAST_UP_TO.get(torch.backends.cpu.get_cpu_capability(), FAST_ELSEWHERE)
    return same and square and depthwise and reach > fast_up_to


class AtrousDepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` that `suits`. Computes in float32, in inference on a CPU; else as its parent does."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.float32, torch.bfloat16) or not infers_on_cpu(self, x):
            return super().forward(x)
        weight = self.weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()
        bias = np.zeros(self.groups, np.float32) if self.bias is None else self.bias.detach().float().numpy()
        return depthwise(x.float(), weight, bias, self.dilation[0]).to(x.dtype)


def depthwise(x: Tensor, weight: Tensor, bias: np.ndarray, rate: int) -> Tensor:
    """(N, C, H, W) float32 to the same, channels last; weight: (side, side, C), bias: (C,)."""
    pixels = x.permute(0, 2, 3, 1).contiguous()
    y = torch.empty_like(pixels)
    count, height, _, channels = pixels.shape
    DEPTHWISE_ROWS.run(
        count * height,
        pixels.numpy(),
        tuple(pixels.shape),
        weight.numpy(),
        bias,
        len(weight),
        rate,
        compiled_loop.lanes(channels),
        y.numpy(),
    )
    return y.permute(0, 3, 1, 2)
