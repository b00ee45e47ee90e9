"""Rounding to 8-bit grids: by hand, and with its gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from atrous.errors import InputError
from atrous.fake_quantize import fake_quantize

FINE, COARSE = (0.5, 2, 0, 7), (2.0, 0, -1, 1)  # -1 .. 2.5 in steps of 0.5; -2 .. 2 in steps of 2


def rounding(*grids: Any) -> nn.Module:
    network = nn.Sequential(nn.Identity())
    fake_quantize(network, {"0": grids})
    return network


def test_values_are_rounded_and_clamped() -> None:
    x = torch.tensor([-9.0, -1.1, -0.6, 0.2, 0.3, 1.9, 9.0])
    assert rounding(FINE)(x).tolist() == [-1.0, -1.0, -0.5, 0.0, 0.5, 2.0, 2.5]
    assert rounding(FINE, COARSE)(x).tolist() == [
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        2.0,
        2.0,
    ]  # halves go to even steps
    assert copy.deepcopy(rounding(FINE))(x.bfloat16()).dtype == torch.bfloat16


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
