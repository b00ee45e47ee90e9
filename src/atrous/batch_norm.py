"""Batch norm that stays frozen, and batch norm over all processes."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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


def synchronise(network: nn.Module, processes: int, device: str) -> nn.Module:
    """The network with batch norms that take their statistics over all processes.

    One process has them already, and torch's kernel is for CUDA: otherwise the network stays as it is.
    """
    if processes > 1 and device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network
