"""Rounding to 8-bit grids: by hand, and with its gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from atrous.errors import InputError
from atrous.fake_quantize import fake_quantize, without_rounding

FINE, COARSE = (0.5, 2, 0, 7), (2.0, 0, -1, 1)  # -1 .. 2.5 in steps of 0.5; -2 .. 2 in steps of 2


def rounding(*grids: Any) -> nn.Module:
    network = nn.Sequential(nn.Identity())
    fake_quantize(network, {"0": grids})
    return network


def test_values_are_rounded_and_clamped() -> None:
    x = torch.tensor([-9.0, -1.1, -0.6, 0.2, 0.3, 1.9, 9.0])
    assert rounding(FINE)(x).tolist() == [-1.0, -1.0, -0.5, 0.0, 0.5, 2.0, 2.5]
    halves_to_even = [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0]
    assert rounding(FINE, COARSE)(x).tolist() == halves_to_even
    assert copy.deepcopy(rounding(FINE))(x.bfloat16()).dtype == torch.bfloat16


def test_numbers_are_torch_s() -> None:
    x = torch.randn(10_000) * 3
    expected = torch.fake_quantize_per_tensor_affine(x, 0.0235, 7, 0, 255)
    found = rounding((0.0235, 7, 0, 255))(x)
    assert (found - expected).abs().max() <= 1e-6


def test_gradients_pass_inside_the_range_alone() -> None:
    x = torch.tensor([-9.0, 0.3, 9.0], requires_grad=True)
    rounding(FINE)(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ({"1": [FINE]}, "1 .* fits no module"),
        ({"0": [(0.5, 2, 0)]}, "0 .* fits no module"),
        ({"0": [(0.0, 2, 0, 7)]}, "0 has a grid that is none"),
        ({"0": [(0.5, 9, 0, 7)]}, "0 has a grid that is none"),
    ],
)
def test_what_does_not_fit(grids: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fake_quantize(nn.Sequential(nn.Identity()), grids)


def test_without_rounding() -> None:
    network, x = rounding(FINE, COARSE), torch.randn(50)
    assert torch.equal(without_rounding(network)(x), x)
    assert not torch.equal(network(x), x)  # the network itself stays as it was
