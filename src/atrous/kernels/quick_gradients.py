"""Convolutions whose gradients oneDNN has slow or wrong code for on a CPU, replaced by those that take another way."""

from __future__ import annotations

from torch import nn

from atrous.kernels.depthwise import DepthwiseConv2d, is_depthwise
from atrous.kernels.dilated import DilatedConv2d, is_dilated
from atrous.kernels.strided import StridedConv2d, is_strided
from atrous.layers import recast


def with_quick_gradients(network: nn.Module) -> nn.Module:
    """The network with a `DepthwiseConv2d`, `DilatedConv2d` or `StridedConv2d` where they apply; names stay."""
    for module in network.modules():
        for name, conv in module.named_children():
            if type(conv) is nn.Conv2d:
                if is_depthwise(conv):
                    module.register_module(name, recast(DepthwiseConv2d, conv))
                elif is_dilated(conv):
                    module.register_module(name, recast(DilatedConv2d, conv))
                elif is_strided(conv):
                    module.register_module(name, recast(StridedConv2d, conv))
    return network
