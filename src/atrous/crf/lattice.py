"""The permutohedral lattice: Gaussian filtering of N points in d dimensions, in O(d^2 N).

Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010.

    features (d, N) --embed--> each point lies in a simplex of d + 1 lattice vertices, with barycentric weights
    values (N, C)   --splat--> vertices (M, C) --blur along d + 1 axes--> vertices (M, C) --slice--> (N, C)

The whole filter is linear, K = alpha * S^T B_d ... B_1 B_0 S: splatting S is sparse, slicing is its transpose, and
each blur B_j is symmetric. So K^T is the same filter with the axes in reverse order, which is all that
`LatticeFilter.backward` does.

The arithmetic of the embedding follows, operation by operation in float32, the code of Kraehenbuehl & Koltun, so
that a point near the border of two simplices falls on the same side here, there, on the CPU and on CUDA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atrous.errors import InputError

_PACKED_LIMIT = 2**62  # vertex coordinates are packed in one int64, with room to step to a neighbour
_COORDINATE_LIMIT = 2**24  # beyond it float32 does not hold integers


@dataclass(frozen=True)
class Lattice:
    """A built lattice: where N points lie in it and which of its M vertices are neighbours.

    vertices: (N, d+1) int64, the vertices of each point's simplex, in 0..M-1.
    barycentric: (N, d+1), their weights; each row sums to 1.
    neighbours: (d+1, 2, M) int64, the vertices one step ahead and one behind along each axis; M where there is none.
    """

    vertices: Tensor
    barycentric: Tensor
    neighbours: Tensor

    @property
    def dimension(self) -> int:
        """d, the number of features of a point."""
        return self.vertices.shape[1] - 1

    @property
    def num_vertices(self) -> int:
        """M, the number of lattice vertices that touch a point."""
        return self.neighbours.shape[2]

    def filter(self, values: Tensor, transpose: bool = False) -> Tensor:
        """Return the Gaussian-filtered `values`, (N, C) -> (N, C); differentiable, any floating dtype."""
        if values.ndim != 2 or values.shape[0] != self.vertices.shape[0]:
            raise InputError(
                f"values: wanted (N, C) with N = {self.vertices.shape[0]}, got {tuple(values.shape)}"
            )
        result: Tensor = LatticeFilter.apply(values, self, transpose)
        return result


def build_lattice(features: Tensor) -> Lattice:
    """Place the points of `features`, (d, N) floating, on a permutohedral lattice.

    A feature is a coordinate divided by its standard deviation: the filter is exp(-|f_i - f_j|^2 / 2).
    Raises InputError where `features` is not (d, N) with d, N >= 1, not finite, or spans more than the lattice holds.
    """
    check_features(features)
    rem0, rank, barycentric = embed(features)
    keys = rem0.long()
    strides = _packing_strides(keys)
    if strides is None:
        return _build_wide(keys, rank, barycentric)
    packed, inverse = torch.unique(pack_vertices(keys, rank, strides), sorted=True, return_inverse=True)
    return Lattice(inverse.T.contiguous(), barycentric.T.contiguous(), _neighbours(packed, strides))


def check_features(features: Tensor) -> None:
    """Raise an InputError unless `features` are (d, N), floating and finite."""
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        got = f"{tuple(features.shape)} {features.dtype}"
        raise InputError(f"features: wanted a floating (d, N) array with d, N >= 1, got {got}")
    if not all_finite(features):
        raise InputError("features: has NaN or infinite values; wanted finite (d, N)")
    if float(features.abs().max()) * embedding_scale(1)[0] * (len(features) + 1) ** 2 > _COORDINATE_LIMIT:
        raise InputError("features: values too large for the lattice; is a standard deviation too small?")


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite; one pass, without a mask as large as `x`."""
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(x.detach()))


def embedding_scale(d: int) -> list[float]:
    """Diagonal of the embedding, p. 5: it makes the splat, blur and slice together a Gaussian of deviation 1, p. 6."""
    deviation = float(torch.tensor(math.sqrt(2.0 / 3.0) * (d + 1), dtype=torch.float32))
    return [1.0 / math.sqrt((i + 1) * (i + 2)) * deviation for i in range(d)]


def embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embed (d, N) features in the plane sum(x) = 0 of d + 1 dimensions and find each point's simplex.

    Returns, each (d+1, N): the simplex's remainder-0 vertex, the rank of each coordinate's distance to it
    (0 = largest), and the barycentric weight of the simplex's remainder-k vertex.
    """
    d = len(features)
    # p. 5, elevated = E f. Products and sums are separate calls, so that none is fused and all devices round alike.
    elevated = torch.empty(d + 1, features.shape[1], dtype=features.dtype, device=features.device)
    total = torch.zeros_like(features[0])
    scales = torch.tensor(embedding_scale(d), dtype=features.dtype).tolist()
    for j in range(d, 0, -1):
        scaled = features[j - 1] * scales[j - 1]
        elevated[j] = total - scaled * j
        total = total + scaled
    elevated[0] = total

    # The nearest remainder-0 point, by rounding each coordinate to a multiple of d + 1; half to even.
    rounded = torch.round(elevated * torch.tensor(1.0 / (d + 1), dtype=features.dtype).item())
    rem0 = rounded * (d + 1)
    order = torch.argsort(elevated - rem0, dim=0, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(d + 1, device=order.device)[:, None].expand_as(order))
    # Rounding may leave the plane by sum(rounded) steps: undo the ones that went furthest.
    rank += rounded.sum(0).long()
    step = (rank < 0).long() - (rank > d).long()
    rank += step * (d + 1)
    rem0 += (step * (d + 1)).to(rem0.dtype)

    # p. 10: differences of successive distances, largest first, are the barycentric weights.
    distance = (elevated - rem0) * torch.tensor(1.0 / (d + 1), dtype=features.dtype).item()
    ranked = torch.empty_like(distance).scatter_(0, rank, distance)
    barycentric = torch.empty_like(distance)
    barycentric[0] = ranked[d] + (1 - ranked[0])
    for k in range(1, d + 1):
        barycentric[k] = ranked[d - k] - ranked[d - k + 1]
    return rem0, rank, barycentric


def pack_vertices(rem0: Tensor, rank: Tensor, strides: list[int]) -> Tensor:
    """Name the d + 1 vertices of each simplex by one int64 each, sum_i strides[i] * coordinate_i; (d+1, N)."""
    d = len(strides) - 1
    stride = torch.tensor(strides, device=rank.device)
    packed = torch.empty_like(rank)
    packed[0] = (rem0 * stride[:, None]).sum(0)
    # The remainder-k vertex is one step from the remainder-(k-1) vertex, along the axis of rank d + 1 - k (p. 4).
    axis = torch.empty_like(rank)
    axis.scatter_(0, rank, torch.arange(d + 1, device=rank.device)[:, None].expand_as(rank))
    for k in range(1, d + 1):
        packed[k] = packed[k - 1] + (sum(strides) - (d + 1) * stride[axis[d + 1 - k]])
    return packed


def _packing_strides(rem0: Tensor) -> list[int] | None:
    """Mixed-radix strides under which no two vertices, nor a vertex and a neighbour, share a name; None: too wide."""
    d = len(rem0) - 1
    low, high = rem0.amin(1).tolist(), rem0.amax(1).tolist()
    return mixed_radix([b - a for a, b in zip(low, high, strict=True)], d)


def mixed_radix(spans: list[int], d: int) -> list[int] | None:
    """Strides for coordinates that span `spans`; the last one follows from the others (they sum to a constant)."""
    strides, product = [], 1
    for span in spans[:d]:
        strides.append(product)
        product *= span + 1 + 4 * (d + 1)  # a vertex is within d of rem0, its neighbour within another d
    return [*strides, 0] if product * (d + 1) < _PACKED_LIMIT else None


def _neighbours(packed: Tensor, strides: list[int]) -> Tensor:
    """Find the neighbours of each of the M sorted `packed` vertices: (d+1, 2, M), M for none."""
    d, m = len(strides) - 1, len(packed)
    found = torch.empty(d + 1, 2, m, dtype=torch.int64, device=packed.device)
    for j, stride in enumerate(strides):
        step = (d + 1) * stride - sum(strides)  # +d along axis j, -1 along the others (p. 4)
        for side, wanted in enumerate((packed + step, packed - step)):
            at = torch.searchsorted(packed, wanted).clamp_(max=m - 1)
            found[j, side] = torch.where(packed[at] == wanted, at, m)
    return found


def _build_wide(rem0: Tensor, rank: Tensor, barycentric: Tensor) -> Lattice:
    """Build a lattice whose coordinates do not fit in one int64 (many dimensions): rows of coordinates as keys."""
    d, n = rank.shape[0] - 1, rank.shape[1]
    k = torch.arange(d + 1, device=rank.device)[:, None, None]
    coordinates = rem0 + k - (d + 1) * (rank > d - k).long()  # (d+1 vertices, d+1 coordinates, N)
    rows, inverse = torch.unique(coordinates.transpose(1, 2).reshape(-1, d + 1), dim=0, return_inverse=True)
    m = len(rows)
    found = torch.empty(d + 1, 2, m, dtype=torch.int64, device=rank.device)
    for j in range(d + 1):
        step = torch.full((d + 1,), -1, device=rank.device)
        step[j] = d
        for side, wanted in enumerate((rows + step, rows - step)):
            both, index = torch.unique(torch.cat([rows, wanted]), dim=0, return_inverse=True)
            owner = torch.full((len(both),), m, device=rank.device)
            owner[index[:m]] = torch.arange(m, device=rank.device)
            found[j, side] = owner[index[m:]]
    return Lattice(inverse.view(d + 1, n).T.contiguous(), barycentric.T.contiguous(), found)


def splat_blur_slice(values: Tensor, lattice: Lattice, transpose: bool) -> Tensor:
    """Filter (N, C) `values`: the definition, in plain torch operations, on any device and in any floating dtype."""
    d, m = lattice.dimension, lattice.num_vertices
    weight = lattice.barycentric.to(values.dtype)
    table = values.new_zeros(m + 1, values.shape[1])  # row m is the missing neighbour: always 0
    for k in range(d + 1):
        table.index_add_(0, lattice.vertices[:, k], values * weight[:, k, None])
    for axis in range(d, -1, -1) if transpose else range(d + 1):
        ahead, behind = lattice.neighbours[axis]
        table[:m] += (table[ahead] + table[behind]) * 0.5
    alpha = 1 / (1 + 2.0**-d)  # what the blur and the barycentric weights add up to (Adams et al.'s own code)
    result = table[lattice.vertices[:, 0]] * (weight[:, 0, None] * alpha)
    for k in range(1, d + 1):
        result += table[lattice.vertices[:, k]] * (weight[:, k, None] * alpha)
    return result


class LatticeFilter(torch.autograd.Function):
    """The filter as a differentiable operation: its gradient is the filter with the axes in reverse order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice, transpose: bool) -> Tensor:
        ctx.lattice, ctx.transpose = lattice, transpose
        return splat_blur_slice(values, lattice, transpose)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        result: Tensor = LatticeFilter.apply(gradient, ctx.lattice, not ctx.transpose)
        return result, None, None
