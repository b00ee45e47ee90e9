"""The lattices of all pairwise terms, normalised, weighted and stacked: what an iteration reads and does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.crf import fast_kernels as kernels
from atrous.crf.fast_lattice import FastLattice
from atrous.kernels.jit import Crew

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

    vertices, barycentric: (N, d+1). start, point, weight: vertex v gathers points point[start[v]:start[v+1]] with
    weights that sum to 1. axes: the blur. total: (M,) weight that reaches each vertex through splat and blur. after:
    (N,) factor of the normalisation and of the lattice. row_sum: the largest of the kernel.
    """

    def __init__(self, features: Array, order: Array, normalization: str, crew: Crew) -> None:
        lattice = FastLattice(features, order, crew)
        self.vertices, self.barycentric = touch = (lattice.vertices, lattice.barycentric)
        n, m = len(self.vertices), lattice.num_vertices
        alpha = np.float32(1 / (1 + 2.0**-lattice.dimension))
        self.axes = [Axis(*chain, np.empty(len(chain[0]), np.float32)) for chain in lattice.chains]
        self.start = np.zeros(m + 1, np.int64)
        crew.run(kernels.count_points, m, self.vertices, self.start[1:], each=1)
        np.cumsum(self.start, out=self.start)
        self.point, self.weight = np.empty(touch[0].size, np.int32), np.empty(touch[0].size, np.float32)
        crew.run(kernels.list_points, m, *touch, self.start, self.point, self.weight, each=1)

        before, row_sum = np.ones(n, np.float32), np.empty(n, np.float32)
        for again in (False, True):
            splatted = np.empty(m, np.float32)
            crew.run(kernels.splat_numbers, m, self.start, self.point, self.weight, before, splatted)
            self.total = splatted.copy()
            for axis in self.axes:
                crew.run(kernels.blur_numbers, len(axis.order), *axis, self.total)
            crew.run(kernels.slice_numbers, n, *touch, self.total, row_sum)
            if again:
                break
            before, self.after = _split(row_sum * alpha, normalization)
            if normalization in ("none", "after"):
                break  # the others change the weights that reach the vertices: once more
        crew.run(kernels.splat_weights, m, self.start, self.point, before, splatted, self.weight)
        self.after *= alpha
        self.row_sum = float((row_sum * self.after).max())


class Stack:
    """Layers one after the other in a table of rows.

    layers: (row of its first vertex, layer). index, slice_weight: (N, E), each point gathers E rows of the table;
    normalisation included and, where all terms have one, the Potts weight. begin: (K+1,), each layer's first column.
    reach: sum over the terms of largest compatibility times largest row sum of the kernel.
    """

    def __init__(self, terms: list[Term], order: Array, crew: Crew) -> None:
        layers = [_layer(term, order, crew) for term in terms]
        width = sum(layer.vertices.shape[1] for layer in layers)
        self.index = np.empty((len(order), width), np.int32)
        self.slice_weight = np.empty((len(order), width), np.float32)
        self.layers: list[tuple[int, Layer]] = []
        self.num_vertices, self.reach, column = 0, 0.0, 0
        self.begin = np.cumsum([0, *(layer.vertices.shape[1] for layer in layers)])
        matrices = any(not isinstance(term.compatibility, float) for term in terms)
        for term, layer in zip(terms, layers, strict=True):
            potts = isinstance(term.compatibility, float) and not matrices
            scale = np.float32((term.compatibility if potts else 1.0) / kernels.ONE)
            touch = (layer.vertices, layer.barycentric, layer.after, scale, layer.total)
            target = (self.num_vertices, column, self.index, self.slice_weight)
            crew.run(kernels.slice_weights, len(order), *touch, *target)
            self.layers.append((self.num_vertices, layer))
            self.num_vertices += len(layer.total)
            self.reach += float(np.abs(term.compatibility).max()) * layer.row_sum
            column += layer.vertices.shape[1]
            if not _keeps(term, len(order)):  # all that iterations need is in index and slice_weight
                del layer.vertices, layer.barycentric


_kept: dict[
    tuple[object, ...], Layer
] = {}  # the last kernel of position alone; its layer may be in use on any thread
_KEEP_POINTS = 2**19  # keep no more than some 70 MB


def _keeps(term: Term, points: int) -> bool:
    """Whether the term's layer is for the next picture, too: a kernel of position alone is the same for one size."""
    return term.name != "" and points <= _KEEP_POINTS


def _layer(term: Term, order: Array, crew: Crew) -> Layer:
    """Build a term's layer, or take it from the last picture."""
    key = (term.name, len(order), term.normalization)
    layer = _kept.get(key)
    if layer is None:
        layer = Layer(term.features, order, term.normalization, crew)
        if _keeps(term, len(order)):
            _kept.clear()
            _kept[key] = layer
    return layer


def _split(norm: Array, normalization: str) -> tuple[Array, Array]:
    """As `model.split_norm`, in float32: the factors before and after the filter, each (N,)."""
    one = np.ones_like(norm)
    if normalization == "symmetric":
        root = 1 / np.sqrt(norm + _TINY)
        return root, root.copy()
    if normalization == "none":
        return one, one.copy()
    inverse = 1 / (norm + _TINY)
    return (inverse, one) if normalization == "before" else (one, inverse)
