"""Depthwise convolutions at large rates: the plain convolution's numbers in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from atrous.kernels import atrous_depthwise
from atrous.kernels.atrous_depthwise import AtrousDepthwiseConv2d, suits
from atrous.kernels.quick_inference import with_quick_inference
from atrous.models import create_model
from atrous.runtimes import fold_batch_norm, prepare

pytestmark = pytest.mark.skipif(not atrous_depthwise.available(), reason="no OpenMP or numba here")

# height, width, side of the kernel, rate: all taps meet the map, some, the middle one alone
CASES = [
    (33, 29, 3, 7),
    (33, 29, 3, 12),
    (20, 41, 3, 36),
    (12, 12, 3, 12),
    (1, 1, 3, 9),
    (17, 30, 5, 4),
    (30, 9, 7, 3),
]


def convolution(channels: int, side: int, rate: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(
        channels, channels, side, padding=rate * (side // 2), dilation=rate, groups=channels, bias=bias
    )


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("channels", [24, 32])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_plain_convolution(
    case: tuple[int, int, int, int],
    channels: int,
    kind: torch.dtype,
    tolerance: float,
    bias: bool,
    layout: torch.memory_format,
) -> None:
    height, width, side, rate = case
    conv = convolution(channels, side, rate, bias).to(kind)
    exact = copy.deepcopy(conv).double()
    (ours,) = with_quick_inference(nn.Sequential(conv))
    assert type(ours) is AtrousDepthwiseConv2d
    x = torch.randn(2, channels, height, width).to(kind).contiguous(memory_format=layout)
    with torch.no_grad():
        found, expected = ours(x), exact(x.double())
    assert found.dtype == kind and found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1, expected.abs().max())


@pytest.mark.parametrize(
    "conv",
    [
        convolution(16, 3, 4),  # for which torch is quick
        convolution(12, 3, 12),
        nn.Conv2d(16, 16, 3, padding=12, dilation=12, groups=8),
        nn.Conv2d(16, 32, 3, padding=12, dilation=12, groups=16),
        nn.Conv2d(16, 16, 3, padding=11, dilation=12, groups=16),
        nn.Conv2d(16, 16, 3, padding=12, dilation=12, groups=16, stride=2),
        nn.Conv2d(16, 16, 3, padding=12, dilation=12, groups=16, padding_mode="circular"),
        nn.Conv2d(16, 16, (3, 1), padding=12, dilation=12, groups=16),
        nn.Conv2d(16, 16, 2, padding=6, dilation=12, groups=16),
    ],
    ids=str,
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    assert not suits(conv)
    (kept,) = with_quick_inference(nn.Sequential(conv))
    assert kept is conv


def test_gradients_are_those_of_the_plain_convolution() -> None:
    conv = convolution(16, 3, 12)
    plain = copy.deepcopy(conv)
    (ours,) = with_quick_inference(nn.Sequential(conv))
    x = torch.randn(1, 16, 30, 30, requires_grad=True)
    expected = torch.autograd.grad(plain(x).square().sum(), (x, plain.weight))
    found = torch.autograd.grad(ours(x).square().sum(), (x, ours.weight))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_keeps_its_logits(precision: str) -> None:
    """v3+ has an atrous separable pyramid (sec. 3.1), of rates 6, 12 and 18."""
    model = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=5, separable=True).eval()
    x = torch.randn(1, 3, 97, 129).contiguous(memory_format=torch.channels_last)
    ours = prepare(model, torch.device("cpu"), "torch", precision)
    assert sum(isinstance(m, AtrousDepthwiseConv2d) for m in ours.modules()) in (2, 3)
    with torch.inference_mode():
        found, plain = ours(x), fold_batch_norm(model)(x)
    assert (found - plain).abs().max() <= {"fp32": 1e-5, "bf16": 5e-2}[precision] * plain.abs().max()
