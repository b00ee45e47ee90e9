"""Rounded kernels that keep their sums, beside every way to round nine weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.kernel_sums import LARGEST, keep_kernel_sums, rounded

SHAPES = [(5, 1, 3, 3), (4, 3, 3, 3), (2, 2, 1, 5), (3, 1, 7, 7)]


def steps_of(weight: Tensor) -> Tensor:
    return weight.double().abs().amax((1, 2, 3), keepdim=True) / LARGEST


def nearest(weight: Tensor) -> Tensor:
    return ((weight.double() / steps_of(weight)).round() * steps_of(weight)).float()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_kept_within_half_a_step_and_weights_within_one(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    found, steps = rounded(weight).double(), steps_of(weight)
    error = (found - weight.double()) / steps
    assert error.abs().max() < 1 + 1e-4
    assert error.sum((2, 3)).abs().max() <= 0.5 + 1e-4
    whole = found / steps
    torch.testing.assert_close(whole, whole.round(), atol=1e-4, rtol=0)
    assert whole.abs().max() <= LARGEST + 1e-4


def test_of_all_roundings_with_that_sum_it_is_the_closest() -> None:
    weight = torch.randn(20, 1, 3, 3)
    exact = (weight.double() / steps_of(weight)).view(20, 9)
    ways = exact.floor()[:, None] + torch.tensor(list(itertools.product((0, 1), repeat=9)))
    error = ways - exact[:, None]
    kept = (error.sum(2).abs() <= 0.5).double()
    best = torch.where(kept > 0, (error**2).sum(2), torch.inf).amin(1)
    found = (rounded(weight).double() / steps_of(weight)).view(20, 9) - exact
    torch.testing.assert_close((found**2).sum(1), best, atol=1e-4, rtol=0)


def test_rounding_to_the_nearest_changes_nothing_more() -> None:
    weight = rounded(torch.randn(6, 2, 3, 3))
    torch.testing.assert_close(nearest(weight), weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(rounded(weight), weight, atol=1e-6, rtol=0)


def test_flat_pictures_are_answered_as_before() -> None:
    """Unlike by weights that are rounded each by itself."""
    weight = torch.randn(200, 1, 3, 3)
    x = torch.rand(1, 200, 1, 1).expand(1, 200, 9, 9)
    exact, kept, plain = (F.conv2d(x, w, groups=200) for w in (weight, rounded(weight), nearest(weight)))
    half_a_step = (steps_of(weight) / 2).float().view(1, -1, 1, 1)
    assert ((kept - exact).abs() <= half_a_step * x[:, :, :1, :1] + 1e-5).all()
    assert (plain - exact).abs().mean() > 2 * (kept - exact).abs().mean()


def test_zeros_and_1x1_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3))
    nn.init.zeros_(network[2].weight)
    before = [conv.weight.detach().clone() for conv in network]
    assert keep_kernel_sums(network) is network
    assert torch.equal(network[0].weight, before[0])
    assert not torch.equal(network[1].weight, before[1])
    assert torch.equal(network[2].weight, before[2])
