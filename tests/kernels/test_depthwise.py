"""Depthwise convolutions in training: the plain convolution's numbers in float64, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.kernels import depthwise
from atrous.kernels.depthwise import DepthwiseConv2d, from_phases, phases
from atrous.kernels.quick_gradients import with_quick_gradients
from atrous.layers import resize
from atrous.models import create_model

# height, width, kernel, stride, rate, zeros around it. On maps as wide as the first, and as narrow as 3 x 1, oneDNN's
# own bfloat16 gradient is wrong by a factor of 1 to 1e35.
CASES = [
    (22, 30, 3, 1, 2, 2), (33, 33, 3, 1, 4, 4), (44, 60, 3, 1, 6, 6), (33, 33, 3, 1, 12, 12), (22, 30, 3, 1, 18, 18),
    (17, 21, 3, 1, 2, 2), (16, 16, 5, 1, 2, 4), (9, 9, 3, 1, 4, 4), (19, 20, 3, 1, 3, 0), (33, 60, 3, 1, 2, 0),
    (5, 40, 3, 1, 3, 3), (2, 60, 3, 1, 9, 9), (1, 1, 3, 1, 2, 2),
    (18, 22, 3, 2, 1, 1), (17, 21, 3, 2, 1, 1), (15, 16, 5, 2, 1, 2), (3, 1, 3, 2, 1, 1), (20, 20, 3, 3, 1, 1),
    (12, 12, 3, 2, 1, 0), (12, 12, 3, 2, 2, 2), (12, 12, 3, 1, 1, 1), (3, 1, 3, 1, 1, 1), (1, 1, 3, 2, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_plain_convolution(
    case: tuple[int, ...], kind: torch.dtype, tolerance: float, bias: bool, layout: torch.memory_format
) -> None:
    """bfloat16 keeps 8 bits: 0.004 for each rounding."""
    height, width, kernel, stride, rate, zeros = case
    conv = nn.Conv2d(32, 32, kernel, stride, zeros, rate, 32, bias)
    exact_conv = copy.deepcopy(conv).double()
    (ours,) = with_quick_gradients(nn.Sequential(conv))
    assert type(ours) is DepthwiseConv2d
    x = torch.randn(2, 32, height, width).to(kind).contiguous(memory_format=layout).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        y = ours(x)
    expected = exact_conv(exact_x)
    assert y.dtype == kind
    gradient = torch.randn(y.shape)
    found = [y, *torch.autograd.grad(y, (x, *ours.parameters()), gradient.to(kind))]
    exact = [expected, *torch.autograd.grad(expected, (exact_x, *exact_conv.parameters()), gradient.double())]
    for a, b in zip(found, exact, strict=True):
        assert a.shape == b.shape
        scale = max(float(b.detach().abs().max()), 1.0)
        assert float((a.double() - b).detach().abs().max()) <= tolerance * scale


def test_phases_and_back() -> None:
    x = torch.arange(2 * 3 * 6 * 4.0).reshape(2, 3, 6, 4)
    split = phases(x, 2)
    assert split.shape == (8, 3, 3, 2)
    assert torch.equal(split[1], x[0, :, 0::2, 1::2])  # phase (0, 1) of the first picture
    assert torch.equal(from_phases(split, 2), x)


def test_autocast_takes_the_quick_ways_and_gives_gradients_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways: list[object] = []
    monkeypatch.setattr(
        depthwise, "phases", lambda *a, phases=depthwise.phases: ways.append("phases") or phases(*a)
    )
    monkeypatch.setattr(
        F, "conv2d", lambda x, *a, conv=F.conv2d, **k: ways.append(x.dtype) or conv(x, *a, **k)
    )
    for stride, rate in ((1, 2), (2, 1)):
        conv = DepthwiseConv2d(8, 8, 3, stride, rate, rate, 8, bias=False)
        x = torch.randn(1, 8, 12, 12, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        y.sum().backward()
        assert y.dtype == torch.bfloat16
        assert conv.weight.grad is not None and x.grad is not None
        assert conv.weight.grad.dtype == x.grad.dtype == torch.float32
    assert ways[0] == "phases"
    assert ways[2:] == [torch.bfloat16, torch.bfloat16]  # forwards, and the gradient of the input


def test_without_gradients_it_is_the_plain_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = DepthwiseConv2d(4, 4, 3, 1, 2, 2, 4)
    monkeypatch.setattr(depthwise, "phases", None)
    x = torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 2, 2, 4))


def test_a_network_keeps_its_names_and_numbers() -> None:
    network = create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=3, separable=True).eval()
    x = torch.rand(1, 3, 97, 129)
    with torch.no_grad():
        expected: Tensor = network(x)
    quick = with_quick_gradients(copy.deepcopy(network))
    changed = [m for m in quick.modules() if isinstance(m, DepthwiseConv2d)]
    assert sum(m.dilation[0] > 1 for m in changed) == 3 + 3  # behind the last stride, and the rates of ASPP
    assert len(changed) == 17 + 3 + 2  # the blocks of the backbone, ASPP, the decoder
    assert list(quick.state_dict()) == list(network.state_dict())
    assert torch.allclose(quick(x), expected, atol=1e-5)


def test_the_gradient_of_a_resize_behind_a_concatenation() -> None:
    """Part of the channels of a channels_last gradient: brought to a form that is fast, with the same numbers."""
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    other = torch.randn(2, 3, 10, 13).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(2, 9, 10, 13)
    (found,) = torch.autograd.grad((torch.cat([other, resize(x, (10, 13))], 1) * weights).sum(), x)
    exact = x.detach().double().requires_grad_()
    grown = F.interpolate(exact, (10, 13), mode="bilinear")
    (expected,) = torch.autograd.grad((grown * weights[:, 3:].double()).sum(), exact)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
