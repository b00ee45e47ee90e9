"""Convolutions whose gradients oneDNN has slow or wrong code for on a CPU, replaced by those that take another way."""

from __future__ import annotations

import torch
from torch import nn

from atrous.depthwise import DepthwiseConv2d, is_depthwise
from atrous.dilated import DilatedConv2d, is_dilated


def with_quick_gradients(network: nn.Module) -> nn.Module:
    """The network with a `DepthwiseConv2d` or `DilatedConv2d` where they apply; weights keep their names."""
    for module in network.modules():
        for name, conv in module.named_children():
            if type(conv) is nn.Conv2d:
                if is_depthwise(conv):
                    module.register_module(name, _as(DepthwiseConv2d, conv))
                elif is_dilated(conv):
                    module.register_module(name, _as(DilatedConv2d, conv))
    return network


def _as(kind: type[nn.Conv2d], conv: nn.Conv2d) -> nn.Conv2d:
    with torch.device("meta"):  # its weights are the other's
        new = kind(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
        )
    new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)
