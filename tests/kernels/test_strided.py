"""Strided convolutions in training: the plain convolution's numbers in float64, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from atrous.kernels.quick_gradients import with_quick_gradients
from atrous.kernels.strided import StridedConv2d
from atrous.models import create_model

# height, width, kernel, stride: of oneDNN's own gradients in bfloat16 those of maps less wide than a stride are wrong
CASES = [
    (1, 1, 3, 2), (33, 1, 3, 2), (9, 1, 5, 2), (1, 1, 7, 2), (33, 1, 7, 2), (17, 2, 3, 3), (9, 1, 1, 2),
    (1, 9, 3, 2), (1, 33, 7, 2), (9, 2, 3, 2), (13, 17, 3, 2),
]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["32", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("channels", [(3, 64), (16, 16), (24, 32)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_plain_convolution(
    case: tuple[int, int, int, int],
    channels: tuple[int, int],
    kind: str,
    bias: bool,
    layout: torch.memory_format,
) -> None:
    height, width, kernel, stride = case
    numbers = torch.float32 if kind == "32" else torch.bfloat16
    conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, bias=bias).to(memory_format=layout)
    if kind == "bf16-true":
        conv = conv.bfloat16()
    exact_conv = copy.deepcopy(conv).double()
    (ours,) = with_quick_gradients(nn.Sequential(conv))
    assert type(ours) is StridedConv2d
    x = (
        torch.randn(2, channels[0], height, width)
        .to(numbers)
        .contiguous(memory_format=layout)
        .requires_grad_()
    )
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16-mixed"):
        y = ours(x)
    expected = exact_conv(exact_x)
    gradient = torch.randn(y.shape).to(numbers)
    found = [y, *torch.autograd.grad(y, (x, *ours.parameters()), gradient)]
    exact = [expected, *torch.autograd.grad(expected, (exact_x, *exact_conv.parameters()), gradient.double())]
    assert [a.dtype for a in found] == [numbers, numbers, *(p.dtype for p in ours.parameters())]
    for a, b in zip(found, exact, strict=True):
        assert a.shape == b.shape
        scale = max(float(b.detach().abs().max()), 1.0)
        assert float((a.double() - b).detach().abs().max()) <= (1e-5 if kind == "32" else 2e-2) * scale


def test_those_of_a_network() -> None:
    network = with_quick_gradients(create_model("deeplab_v3", "resnet50", num_classes=3))
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride[1] > 1]
    assert len(strided) == 5 and {type(m) for m in strided} == {
        StridedConv2d
    }  # stem, and two blocks with shortcut
