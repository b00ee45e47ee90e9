"""Convolutions in inference on a CPU: torch's (oneDNN's) and ours, float32, taking turns.

    python benchmarks/convolutions.py [--threads 2] [--rounds 11]

The layers are those of the networks at the sizes named beside them. Printed are medians, their ratio, and the largest
difference as a share of the largest output. `pays` and `suits` decide which way is taken.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atrous.allocator import keep_freed_memory
from atrous.kernels.atrous_depthwise import AtrousDepthwiseConv2d, suits
from atrous.kernels.winograd import Winograd, pays
from atrous.layers import recast


class Layer(NamedTuple):
    where: str
    channels: int
    outputs: int
    height: int
    width: int
    rate: int


DENSE = [
    Layer("ResNet-50, block 2, output stride 8, 375x500", 128, 128, 47, 63, 1),
    Layer("ResNet-50, block 3, output stride 8, 375x500", 256, 256, 47, 63, 2),
    Layer("ResNet-50, block 4, output stride 8, 375x500", 512, 512, 47, 63, 4),
    Layer("v3 pyramid, output stride 8, 375x500", 2048, 256, 47, 63, 12),
    Layer("v3+ decoder, 512x512", 304, 256, 128, 128, 1),
    Layer("PSPNet, behind the pyramid, 473x473", 4096, 512, 60, 60, 1),
    Layer("ResNet-50, block 1, 375x500", 64, 64, 94, 125, 1),
]
DEPTHWISE = [
    Layer("v3+ on MobileNetV2, output stride 16, 512x512", 320, 320, 32, 32, 6),
    Layer("the same", 320, 320, 32, 32, 12),
    Layer("the same", 320, 320, 32, 32, 18),
    Layer("v3+ on a ResNet, output stride 16, 512x512", 2048, 2048, 32, 32, 6),
    Layer("the same", 2048, 2048, 32, 32, 12),
    Layer("the same", 2048, 2048, 32, 32, 18),
    Layer("output stride 8", 2048, 2048, 64, 64, 36),
]


def milliseconds(ways: list[Callable[[], Tensor]], rounds: int) -> list[float]:
    """Medians; each way is called twice in a turn and the second call counts."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, times in zip(ways, taken, strict=True):
            way()
            start = time.perf_counter()
            way()
            times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]


def compare(layer: Layer, depthwise: bool, rounds: int) -> None:
    groups = layer.channels if depthwise else 1
    conv = nn.Conv2d(
        layer.channels, layer.outputs, 3, padding=layer.rate, dilation=layer.rate, groups=groups
    ).to(memory_format=torch.channels_last)
    x = torch.randn(1, layer.channels, layer.height, layer.width).contiguous(
        memory_format=torch.channels_last
    )
    if depthwise:
        ours: Callable[[Tensor], Tensor] = recast(AtrousDepthwiseConv2d, conv)
    else:
        ours = Winograd(conv.weight, conv.bias, layer.rate)
    expected = conv(x)
    far = float((ours(x) - expected).abs().max() / expected.abs().max())
    theirs, mine = milliseconds([lambda: conv(x), lambda: ours(x)], rounds)
    taken = suits(conv) if depthwise else pays(tuple(x.shape), layer.outputs, layer.rate)
    print(
        f"{layer.channels:4d} to {layer.outputs:4d}, {layer.height:3d}x{layer.width:<3d}, rate {layer.rate:2d}   "
        f"{theirs:7.2f} -> {mine:6.2f} ms   {theirs / mine:6.1f}x   differ by {far:.0e}   "
        f"{layer.where}{'' if taken else '   not taken'}",
        flush=True,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # for both: so the memory of the outputs costs neither anything
    print(f"3x3 dense, {given.threads} threads")
    for layer in DENSE:
        compare(layer, False, given.rounds)
    print("3x3 depthwise")
    for layer in DEPTHWISE:
        compare(layer, True, given.rounds)


if __name__ == "__main__":
    main()
