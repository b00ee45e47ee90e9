from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from drawn import gaussian, picture

from atrous.crf import bilateral_features, build_lattice, lattice, position_features
from atrous.errors import InputError


def points(d: int, n: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(d, n, generator=torch.Generator().manual_seed(d)) * spread


def dense(
    built: lattice.Lattice, dtype: torch.dtype = torch.float64, transpose: bool = False
) -> torch.Tensor:
    """The filter as an (N, N) matrix."""
    return built.filter(torch.eye(len(built.vertices), dtype=dtype), transpose)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_filter_is_close_to_a_gaussian(d: int) -> None:
    features = points(d, 300, 1.0)
    built = build_lattice(features)
    kernel, exact = dense(built).numpy(), gaussian(features.numpy())
    # rows normalised, as a CRF uses them; Adams et al. (fig. 7) report errors of some percent
    kernel, exact = kernel / kernel.sum(1, keepdims=True), exact / exact.sum(1, keepdims=True)
    assert np.corrcoef(kernel.ravel(), exact.ravel())[0, 1] > 0.9
    assert np.abs(kernel - exact).sum(1).mean() < 0.45


@pytest.mark.parametrize("d", [1, 2, 5, 7])
def test_barycentric_weights_place_the_point_in_its_simplex(d: int) -> None:
    features = points(d, 200, 30.0)
    rem0, rank, barycentric = lattice.embed(features)
    assert torch.allclose(barycentric.sum(0), torch.ones(200), atol=1e-4)
    assert barycentric.min() > -1e-4
    assert bool((rem0.sum(0) == 0).all()), "remainder-0 points lie in the plane"
    assert bool((rem0 % (d + 1) == 0).all())
    # the weighted vertices add up to the embedded point, whose coordinates are a linear map of the features
    k = torch.arange(d + 1)[:, None, None]
    vertices = rem0 + k - (d + 1) * (rank > d - k).float()
    embedded = (barycentric[:, None] * vertices).sum(0)
    scaled = features * torch.tensor(lattice.embedding_scale(d))[:, None]
    for j in range(d + 1):
        expected = scaled[j:].sum(0) - (j * scaled[j - 1] if j else 0)
        assert torch.allclose(embedded[j], expected, atol=2e-2 if d > 5 else 5e-3)


def test_transpose_is_the_transposed_matrix() -> None:
    built = build_lattice(points(3, 60))
    assert torch.allclose(dense(built).T, dense(built, transpose=True), atol=1e-12)


def test_gradient_in_float64() -> None:
    built = build_lattice(points(2, 12))
    values = torch.rand(12, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(built.filter, values)
    assert torch.autograd.gradgradcheck(built.filter, values)


def test_names_too_long_for_an_integer_take_another_way_to_the_same_lattice() -> None:
    features = points(4, 150, 3.0)
    packed = build_lattice(features)
    rem0, rank, barycentric = lattice.embed(features)
    wide = lattice._build_wide(rem0.long(), rank, barycentric)
    assert wide.num_vertices == packed.num_vertices
    assert torch.equal(dense(wide), dense(packed))
    high = build_lattice(points(14, 40, 50.0))
    assert high.dimension == 14
    assert torch.isfinite(dense(high)).all()


@pytest.mark.parametrize(
    "features",
    [
        points(1, 97, 20.0),
        points(3, 500, 4.0),
        points(6, 200, 1.0),
        position_features((23, 31), 1.0),
        bilateral_features(torch.from_numpy(picture(23, 31)), 67, 3),
        torch.zeros(5, 7),
    ],
)
def test_compiled_lattice_is_the_same(features: torch.Tensor) -> None:
    pytest.importorskip("numba")
    from atrous.crf.fast_lattice import FastLattice
    from atrous.kernels.jit import Crew

    expected = build_lattice(features)
    with Crew(3) as crew:
        order = np.random.default_rng(0).permutation(features.shape[1])
        built = FastLattice(features.numpy(), order, crew)
    vertices, barycentric = np.empty_like(built.vertices), np.empty_like(built.barycentric)
    vertices[order], barycentric[order] = built.vertices, built.barycentric
    assert built.num_vertices == expected.num_vertices
    # a renumbering of the vertices, and bit for bit the same weights
    numbers = np.full(expected.num_vertices, -1)
    numbers[expected.vertices.numpy().reshape(-1)] = vertices.reshape(-1)
    assert np.array_equal(np.sort(numbers), np.arange(built.num_vertices))
    assert np.array_equal(numbers[expected.vertices.numpy()], vertices)
    assert np.array_equal(np.maximum(expected.barycentric.numpy(), 0), barycentric)
    # the same neighbours, axis by axis
    for j, (chain, behind) in enumerate(built.chains):
        pairs = {
            (a, b) for (a, b), linked in zip(itertools.pairwise(chain), behind[1:], strict=True) if linked
        }
        assert len(behind) == 0 or behind[0] == 0
        ahead = expected.neighbours[j, 0].numpy()
        has = np.flatnonzero(ahead < expected.num_vertices)
        assert pairs == set(zip(numbers[has], numbers[ahead[has]], strict=True))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(5), r"features: wanted a floating \(d, N\)"),
        (torch.zeros(0, 5), r"features: wanted a floating \(d, N\)"),
        (torch.zeros(2, 5, dtype=torch.int64), "features: wanted a floating"),
        (torch.full((2, 5), float("nan")), "features: has NaN"),
        (torch.full((2, 5), 1e9), "features: values too large"),
    ],
)
def test_bad_features(features: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_lattice(features)
