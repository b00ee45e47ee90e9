"""Atrous convolutions in training: the plain convolution's numbers in float64, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from atrous.kernels import dilated
from atrous.kernels.dilated import DilatedConv2d, share
from atrous.kernels.quick_gradients import with_quick_gradients
from atrous.layers import map_mean
from atrous.models import create_model

# height, width, rate: all nine weights meet the map, some, a row or a column of three, the middle one alone
CASES = [
    (29, 33, 2), (29, 33, 12), (15, 33, 8), (20, 33, 24), (33, 20, 24), (29, 33, 36), (12, 12, 12),
    (1, 1, 6), (1, 40, 6),
]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("channels", [24, 32])  # of oneDNN's own gradients in bfloat16 those of 24 are wrong
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_plain_convolution(
    case: tuple[int, int, int],
    channels: int,
    kind: torch.dtype,
    tolerance: float,
    bias: bool,
    layout: torch.memory_format,
) -> None:
    height, width, rate = case
    conv = nn.Conv2d(channels, 16, 3, padding=rate, dilation=rate, bias=bias).to(memory_format=layout)
    exact_conv = copy.deepcopy(conv).double()
    (ours,) = with_quick_gradients(nn.Sequential(conv))
    assert type(ours) is DilatedConv2d
    x = torch.randn(2, channels, height, width).to(kind).contiguous(memory_format=layout).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        y = ours(x)
    expected = exact_conv(exact_x)
    gradient = torch.randn(y.shape)
    found = [y, *torch.autograd.grad(y, (x, *ours.parameters()), gradient.to(kind))]
    exact = [expected, *torch.autograd.grad(expected, (exact_x, *exact_conv.parameters()), gradient.double())]
    assert [a.dtype for a in found] == [kind, kind, *(torch.float32 for _ in ours.parameters())]
    for a, b in zip(found, exact, strict=True):
        assert a.shape == b.shape
        scale = max(float(b.detach().abs().max()), 1.0)
        assert float((a.double() - b).detach().abs().max()) <= tolerance * scale


@pytest.mark.parametrize("case", CASES, ids=str)
def test_share_is_what_counting_gives(case: tuple[int, int, int]) -> None:
    """A kernel of ones on a map of ones counts the products that meet the map."""
    height, width, rate = case
    ones = torch.ones(1, 1, height, width, dtype=torch.float64)
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    counted = nn.functional.conv2d(ones, kernel, padding=rate, dilation=rate).sum()
    assert share(*case) == pytest.approx(float(counted) / (9 * height * width))


def test_the_quick_way_is_taken_where_few_weights_meet_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_quick_gradients(
        create_model("deeplab_v3", "resnet50", num_classes=5, multi_grid=(1, 1, 1))
    )
    taken: list[int] = []
    way = dilated.weight_gradient
    monkeypatch.setattr(dilated, "weight_gradient", lambda x, g, rate: taken.append(rate) or way(x, g, rate))
    network(torch.randn(2, 3, 257, 257)).sum().backward()
    assert sorted(taken) == [6, 12, 18]  # of ASPP, on 17 x 17 points; of rate 2, in block 4, 0.85 meets them


def test_frozen_weights_need_no_gradient() -> None:
    (conv,) = with_quick_gradients(nn.Sequential(nn.Conv2d(3, 4, 3, padding=9, dilation=9)))
    conv.weight.requires_grad_(False)
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None and conv.weight.grad is None


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_of_a_mean_lies_as_the_map_does(layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 7, 4).contiguous(memory_format=layout).requires_grad_()
    mean = map_mean(x)
    (gradient,) = torch.autograd.grad(mean, x, torch.arange(10.0).view(2, 5, 1, 1))
    assert torch.allclose(mean, x.mean((2, 3), keepdim=True))
    assert torch.allclose(gradient, (torch.arange(10.0) / 28).view(2, 5, 1, 1).expand_as(x))
    assert gradient.is_contiguous(memory_format=layout)


def test_what_is_hooked_to_a_convolution_stays() -> None:
    """Such as the rounding of a quantised file (`fake_quantize`)."""
    conv = nn.Conv2d(16, 16, 3, padding=4, dilation=4)
    conv.register_forward_hook(lambda _module, _inputs, output: output.round())
    (ours,) = with_quick_gradients(nn.Sequential(conv))
    assert type(ours) is DilatedConv2d
    x = torch.randn(1, 16, 9, 9)
    assert torch.equal(ours(x), ours(x).round())
