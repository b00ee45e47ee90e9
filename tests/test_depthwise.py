"""The gradients of dilated depthwise convolutions against those in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from atrous.depthwise import PhasedConv2d, by_phases, from_phases, phases
from atrous.models import create_model


def gradients(conv: nn.Conv2d, x: Tensor, of: Tensor) -> list[Tensor]:
    """Output, and the gradients of the input, the weights and the bias; all in float64."""
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = conv(x)
    y.backward(of.to(y.dtype))
    grads = [x.grad, *(p.grad for p in conv.parameters())]
    return [t.detach().double() for t in (y, *grads) if t is not None]


@pytest.mark.parametrize("size", [(22, 30), (19, 19), (33, 33), (9, 40)], ids=str)
@pytest.mark.parametrize(("rate", "padding"), [(2, 2), (3, 3), (4, 0), (6, 6), (12, 12)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_gradients(
    size: tuple[int, int], rate: int, padding: int, dtype: torch.dtype, tolerance: float
) -> None:
    """bfloat16 keeps 8 bits: 0.004 for each rounding. What torch does by itself is wrong by 1 to 1e35 there."""
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, padding=padding, dilation=rate, groups=32)
    x = torch.randn(4, 32, *size)
    of = torch.randn_like(conv(x))
    expected = gradients(copy.deepcopy(conv).double(), x.double(), of)
    phased = by_phases(nn.Sequential(conv))[0]  # type: ignore[index]
    assert type(phased) is PhasedConv2d
    for ours, theirs in zip(gradients(phased, x.to(dtype), of), expected, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_phases_and_back() -> None:
    x = torch.arange(2 * 3 * 6 * 4.0).reshape(2, 3, 6, 4)
    split = phases(x, 2)
    assert split.shape == (8, 3, 3, 2)
    assert torch.equal(split[1], x[0, :, 0::2, 1::2])  # phase (0, 1) of the first picture
    assert torch.equal(from_phases(split, 2), x)


def test_a_network_keeps_its_names_and_numbers() -> None:
    torch.manual_seed(0)
    network = create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=3, separable=True).eval()
    before = network.state_dict()
    x = torch.rand(1, 3, 97, 129)
    with torch.no_grad():
        expected = network(x)
    phased = by_phases(copy.deepcopy(network))
    changed = [m for m in phased.modules() if isinstance(m, PhasedConv2d)]
    assert len(changed) == 3 + 3  # the blocks behind the last stride, the rates of ASPP
    assert list(phased.state_dict()) == list(before)
    assert torch.allclose(phased(x), expected, atol=1e-5)
