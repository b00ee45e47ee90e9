"""Strided convolutions whose gradient of the weights is right on a CPU.

That of oneDNN, which computes torch's convolutions there, is garbage up to NaN in bfloat16 where the stride is longer
than the map is wide (oneDNN 3.12, torch 2.14): that of the float32 convolution is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atrous.layers import in_float32


class StridedConv2d(nn.Conv2d):
    """`nn.Conv2d` with a stride."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.shape[-1] < self.stride[1]:
            return in_float32(self, x)
        return super().forward(x)


def is_strided(conv: nn.Conv2d) -> bool:
    """Such as `StridedConv2d` can compute."""
    return conv.stride[1] > 1 and conv.padding_mode == "zeros"
