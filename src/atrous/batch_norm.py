"""Batch norm that stays frozen, and batch norm over all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from atrous.layers import BatchNorm2d


class Frozen:
    """Mixed into a batch norm: it uses its running statistics, and keeps them, whatever `.train()` says."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)  # type: ignore[misc]


def freeze(network: nn.Module, affine: bool = True) -> None:
    """Freeze the statistics of every batch norm and, with `affine`, its scale and shift."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, Frozen):
            module.__class__ = type(f"Frozen{type(module).__name__}", (Frozen, type(module)), {})
            module.eval()
            if affine:
                module.requires_grad_(False)


class Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return Sum.apply(gradient)


class SyncBatchNorm2d(BatchNorm2d):
    """Batch norm of (N, C, H, W) with the mean and variance over all processes, on any device.

    torch's own is for CUDA alone. Here two sums of C numbers, and the count, are exchanged forwards and backwards.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        kind, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))
        count = Sum.apply(x.new_tensor(x.numel() / x.shape[1]))
        mean = Sum.apply(x.sum((0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = Sum.apply(centred.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(unbiased.detach(), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps)
        return (centred * (scale * self.weight).view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(kind)


def synchronise(network: nn.Module, processes: int, device: str) -> nn.Module:
    """The network with batch norms that take their statistics over all processes.

    One process has them already and keeps its own. On CUDA they become torch's, elsewhere `SyncBatchNorm2d`.
    """
    if processes == 1:
        return network
    if device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) in (nn.BatchNorm2d, BatchNorm2d):
            module.__class__ = SyncBatchNorm2d
    return network
