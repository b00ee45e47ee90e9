"""The lattices of all pairwise terms, normalised, weighted and stacked: what an iteration reads and does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.crf import fast_kernels as kernels
from atrous.crf.fast_lattice import FastLattice, blur_again, blur_once, slice_ones, splat_ones
from atrous.crf.jit import Crew

if TYPE_CHECKING:
    from atrous.crf.fast import Term

Array = NDArray[Any]
_TINY = np.float32(1e-20)


class Axis(NamedTuple):
    """One axis of a blur: chains of vertices, and the share that each takes from the one behind and ahead; (L,)."""

    order: Array
    behind: Array
    ahead: Array


class Stack:
    """Lattices one after the other, as weighted lists of who touches whom.

    start, point, splat_weight: vertex v gathers points point[start[v]:start[v+1]] with weights that sum to 1.
    index, slice_weight: (N, E), each point gathers E rows of the table; Potts weight and normalisation included.
    axes: (row of the lattice's first vertex, Axis) in the order of the blur.
    reach: sum over the terms of weight times largest row sum of the normalised kernel.
    """

    def __init__(self, terms: list[Term], order: Array, crew: Crew) -> None:
        n = len(order)
        width = sum(term.features.shape[0] + 1 for term in terms)
        self.index = np.empty((n, width), np.int32)
        self.slice_weight = np.empty((n, width), np.float32)
        self.point = np.empty(n * width, np.int32)
        self.splat_weight = np.empty(n * width, np.float32)
        self.axes: list[tuple[int, Axis]] = []
        self.reach = 0.0
        self.num_vertices = 0
        starts = [np.zeros(1, np.int64)]
        first = 0
        for term in terms:
            lattice = FastLattice(np.ascontiguousarray(term.features[:, order]), crew)
            starts.append(self._add(lattice, term, first, crew))
            first += lattice.dimension + 1
        self.start = np.concatenate(starts)

    def _add(self, lattice: FastLattice, term: Term, first: int, crew: Crew) -> Array:
        """Append a term's lattice; `first` is its first column of index. Returns its part of `start`."""
        d, n, m = lattice.dimension, len(lattice.vertices), lattice.num_vertices
        alpha = np.float32(1 / (1 + 2.0**-d))
        touch = (lattice.vertices, lattice.barycentric)
        axes = [Axis(o, np.empty(len(o), np.float32), np.empty(len(o), np.float32)) for o in lattice.order]
        total, row_sum = np.zeros(m, np.float32), np.empty(n, np.float32)
        ones = np.ones(n, np.float32)
        splat_ones(*touch, ones, total)
        splatted = total.copy()
        for axis in axes:
            blur_once(axis.order, total, axis.behind, axis.ahead)
        slice_ones(*touch, total, row_sum)
        before, after = _split(row_sum * alpha, term.normalization)
        if term.normalization in (
            "before",
            "symmetric",
        ):  # other weights reach the vertices: once more, with them
            total[:] = 0
            splat_ones(*touch, before, total)
            splatted = total.copy()
            for axis in axes:
                blur_again(axis.order, axis.behind, axis.ahead, total)
            slice_ones(*touch, total, row_sum)
        self.reach += term.weight * float((row_sum * alpha * after).max())

        factor = after * np.float32(term.weight * alpha / kernels.ONE)
        offset = self.num_vertices
        crew.run(
            kernels.slice_weights, n, *touch, factor, total, offset, first, self.index, self.slice_weight
        )
        start = np.zeros(m + 1, np.int64)
        kernels.splat_weights(*touch, before, splatted, 0, n * first, start, self.point, self.splat_weight)
        self.axes += [(offset, axis) for axis in axes]
        self.num_vertices += m
        return start[1:]


def _split(norm: Array, normalization: str) -> tuple[Array, Array]:
    """As `model.split_norm`, in float32: the factors before and after the filter, each (N,)."""
    one = np.ones_like(norm)
    if normalization == "symmetric":
        root = 1 / np.sqrt(norm + _TINY)
        return root, root
    if normalization == "none":
        return one, np.full_like(norm, 1 / norm.mean(dtype=np.float64))
    inverse = 1 / (norm + _TINY)
    return (inverse, one) if normalization == "before" else (one, inverse)
