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


class Layer:
    """One term's lattice with the weights of its normalised kernel.

    touch: vertices and barycentric, (N, d+1). before, after: (N,) factors of the normalisation. splatted, total: (M,)
    weight that reaches each vertex by the splat and, from there, by the blur. row_sum: the largest of the kernel.
    """

    def __init__(self, features: Array, normalization: str, crew: Crew) -> None:
        lattice = FastLattice(features, crew)
        n, d = lattice.vertices.shape[0], lattice.dimension
        self.touch = (lattice.vertices, lattice.barycentric)
        self.alpha = np.float32(1 / (1 + 2.0**-d))
        self.axes = [
            Axis(o, np.empty(len(o), np.float32), np.empty(len(o), np.float32)) for o in lattice.order
        ]
        self.total, row_sum = np.zeros(lattice.num_vertices, np.float32), np.empty(n, np.float32)
        splat_ones(*self.touch, np.ones(n, np.float32), self.total)
        self.splatted = self.total.copy()
        for axis in self.axes:
            blur_once(axis.order, self.total, axis.behind, axis.ahead)
        slice_ones(*self.touch, self.total, row_sum)
        self.before, self.after = _split(row_sum * self.alpha, normalization)
        if normalization in ("before", "symmetric"):  # other weights reach the vertices: once more, with them
            self.total[:] = 0
            splat_ones(*self.touch, self.before, self.total)
            self.splatted = self.total.copy()
            for axis in self.axes:
                blur_again(axis.order, axis.behind, axis.ahead, self.total)
            slice_ones(*self.touch, self.total, row_sum)
        self.row_sum = float((row_sum * self.alpha * self.after).max())


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
            layer = _layer(term, order, crew)
            starts.append(self._add(layer, term.weight, first, crew))
            first += layer.touch[0].shape[1]
        self.start = np.concatenate(starts)

    def _add(self, layer: Layer, weight: float, first: int, crew: Crew) -> Array:
        """Append a term's lattice; `first` is its first column of index. Returns its part of `start`."""
        n, m, offset = len(self.index), len(layer.total), self.num_vertices
        factor = layer.after * np.float32(weight * layer.alpha / kernels.ONE)
        filled = (offset, first, self.index, self.slice_weight)
        crew.run(kernels.slice_weights, n, *layer.touch, factor, layer.total, *filled)
        start = np.zeros(m + 1, np.int64)
        scale = (layer.before, layer.splatted)
        kernels.splat_weights(*layer.touch, *scale, 0, n * first, start, self.point, self.splat_weight)
        self.axes += [(offset, axis) for axis in layer.axes]
        self.num_vertices += m
        self.reach += weight * layer.row_sum
        return start[1:]


_kept: dict[tuple[object, ...], Layer] = {}  # the last kernel of position alone
_KEEP_POINTS = 2**19  # keep no more than some 50 MB


def _layer(term: Term, order: Array, crew: Crew) -> Layer:
    """Build a term's layer, or take it from the last picture: a kernel of position alone is the same for one size."""
    key = (term.name, len(order), term.normalization)
    layer = _kept.get(key) if term.name else None
    if layer is None:
        layer = Layer(np.ascontiguousarray(term.features[:, order]), term.normalization, crew)
        if term.name and len(order) <= _KEEP_POINTS:
            _kept.clear()
            _kept[key] = layer
    return layer


def _split(norm: Array, normalization: str) -> tuple[Array, Array]:
    """As `model.split_norm`, in float32: the factors before and after the filter, each (N,)."""
    one = np.ones_like(norm)
    if normalization == "symmetric":
        root = 1 / np.sqrt(norm + _TINY)
        return root, root
    if normalization == "none":
        return one, one
    inverse = 1 / (norm + _TINY)
    return (inverse, one) if normalization == "before" else (one, inverse)
