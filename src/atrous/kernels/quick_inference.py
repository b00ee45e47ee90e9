"""Convolutions for inference on a CPU that torch has slower ways for, replaced by those that take another way."""

from __future__ import annotations

from torch import nn

from atrous.kernels import atrous_depthwise, winograd
from atrous.kernels.atrous_depthwise import AtrousDepthwiseConv2d
from atrous.kernels.winograd import WinogradConv2d
from atrous.layers import recast


def with_quick_inference(network: nn.Module) -> nn.Module:
    """The network with a `WinogradConv2d` or `AtrousDepthwiseConv2d` where they apply; weights keep their names.

    Weights must not change afterwards. Where the machine lacks what they need, the network as it is.
    """
    rooms = ((winograd, WinogradConv2d), (atrous_depthwise, AtrousDepthwiseConv2d))
    for room, kind in rooms:
        if not room.available():
            continue
        for module in network.modules():
            for name, conv in module.named_children():
                if type(conv) is nn.Conv2d and room.suits(conv):
                    module.register_module(name, recast(kind, conv))
    return network
