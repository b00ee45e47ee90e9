"""Mean-field inference as compiled CPU code: the iteration of `model.MeanField`.

All terms' lattices are stacked in one table, so that an iteration is: one splat, the blurs, and one pass over the
points that slices every kernel, adds the unary and takes the softmax. Normalisation, weights and the lattice's own
scale are folded in the weights of splat and slice. With Potts terms the sum over kernels is one sum over lattice
rows; other compatibilities multiply each kernel's message by their matrix.

With Potts terms, classes that are nowhere alive are not iterated. Let q be the largest softmax(-unary) of a class
over all points, w_m and R_m the weight and the largest row sum of kernel m, and L = sum_m w_m R_m. Messages are >=
0, so they only enlarge the sum that Q is divided by; and those to the class are at most L max Q. By induction Q <=
q exp(L max Q) <= x, with x = q exp(2 L q), in every iteration, as long as L q <= ln(2) / 2. Leaving out its message
multiplies the class's share by no less than exp(-L x), which moves any Q by less than q (exp(L x) - 1) in one
iteration. Left out are the classes, smallest first, for which these sum to less than TOLERANCE. They keep their
share of the softmax, and come out as exp(-unary) over its sum. A pixel between two labels may enlarge what the last
iteration left, by L / 2 at worst; on real pictures with C = 21 and 150 the result after 10 iterations moves by less
than 2e-4.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = 1e-4
MAX_REACH = 100.0  # Q is held to 1e-5, so energies to 1e-5 of this

Array = NDArray[Any]


class Unsuitable(Exception):  # noqa: N818  (not an error: `model.MeanField` then iterates in torch)
    """The compiled code does not cover this model."""


def available() -> bool:
    """Whether numba is installed (`pip install 'atrous[crf]'`); without it inference runs in plain torch, slower."""
    return importlib.util.find_spec("numba") is not None


@dataclass(frozen=True)
class Term:
    """A pairwise term: features (d, N) float32, and how its kernel is normalised (see `model.Pairwise`).

    compatibility: a weight (Potts), or a matrix (C, C), the penalty of each pair of labels.
    name: where not empty, terms of the same name have the same features, in the same order of points.
    """

    features: Array
    compatibility: float | Array
    normalization: str
    name: str = ""


class CompiledMeanField:
    """unary: (C, N) float32 tensor on the CPU. order: permutation of the N points, as they are to lie in memory.

    Raises Unsuitable where a lattice is too wide, or energies are too large, for its integers.
    """

    def __init__(self, unary: Tensor, terms: list[Term], order: Tensor | None = None) -> None:
        from atrous.crf import (
            fast_kernels as kernels,
        )  # numba takes half a second to import: not before it is used
        from atrous.crf.stack import Stack
        from atrous.kernels.jit import Crew

        self.unary = unary.detach().contiguous().numpy()
        classes, n = self.unary.shape
        self.order = np.arange(n, dtype=np.int64) if order is None else order.numpy()
        self.blocks = -(-n // kernels.BLOCK)
        self.low, largest = np.empty(n, np.float32), np.empty((self.blocks, classes), np.float32)
        self.matrices = None
        if any(not isinstance(term.compatibility, float) for term in terms):
            self.matrices = np.stack([_matrix(term.compatibility, classes) for term in terms])
        with Crew() as crew:
            self.stack = Stack(terms, self.order, crew)
            if self.stack.reach > MAX_REACH:
                raise Unsuitable(f"pairwise energies reach {self.stack.reach:.0f}")
            crew.run(kernels.survey, self.blocks, self.unary, self.low, largest)
        self.alive, self.dead = np.arange(classes), np.arange(0)
        if self.matrices is None and all(term.compatibility >= 0 for term in terms):
            self.alive, self.dead = split_classes(largest.max(0), self.stack.reach)

    def run(
        self,
        iterations: int,
        q: Tensor | None = None,
        overwrite_unary: bool = False,
        softmax: bool = True,
    ) -> Tensor:
        """Q after `iterations` from softmax(-unary), or from the given `q`; both (C, N) float32.

        softmax: without it, the last iteration's logits, up to a constant at each point; it needs `q`.
        """
        from atrous.crf import fast_kernels as kernels
        from atrous.kernels.jit import Crew

        classes, n = self.unary.shape
        alive, dead = self.alive, self.dead
        if q is not None:  # the bound on the classes left out holds only from softmax(-unary) on
            alive, dead = np.arange(classes), self.dead[:0]
        lanes, blocks = row_shape(len(alive))
        stride = 8 * len(lanes) * blocks
        stack, order = self.stack, self.order
        matrices = np.empty(0, np.float32) if self.matrices is None else _rows_of(self.matrices, stride)
        no_kernels = np.empty(0, np.int64)
        logits = np.empty(n * stride, np.float32)
        rest, norm = np.zeros(n, np.float32), np.empty(n if softmax else 0, np.float32)
        rows, table = np.zeros(n * stride, np.uint16), np.empty(stack.num_vertices * stride, np.float32)
        result = self.unary if overwrite_unary else self.unary.copy()
        not_yet = result[:0]
        with Crew() as crew:
            crew.run(kernels.add_rest, self.blocks, self.unary, dead, self.low, rest)
            crew.run(kernels.gather_logits, n, self.unary, alive, self.low, order, stride, logits)
            if q is not None:
                crew.run(kernels.gather_rows, n, q.detach().contiguous().numpy(), order, stride, rows)
            for iteration in range(0 if q is None else 1, iterations + 1):
                for first, layer in stack.layers if iteration else []:
                    points = (layer.start, layer.point, layer.weight, rows)
                    crew.run(kernels.splat, len(layer.total), lanes, blocks, *points, first, table)
                    for axis in layer.axes:
                        crew.run(kernels.blur, len(axis.order), lanes, blocks, *axis, first, table)
                index = stack.index if iteration else stack.index[:, :0]
                out = result if iteration == iterations else not_yet
                given = (logits, rest, index, stack.slice_weight, table, rows, alive, order, out, norm)
                begin = no_kernels if matrices.size == 0 else stack.begin if iteration else 0 * stack.begin
                crew.run(kernels.update, n, lanes, blocks, *given, begin, matrices)
            if len(dead):
                crew.run(kernels.fill_rest, self.blocks, dead, self.low, norm, result)
        return torch.from_numpy(result)

    def pairwise_energy(self, q: Tensor) -> Tensor:
        """The expected pairwise energy of each label under `q`, both (C, N) float32."""
        logits = self.run(1, q, softmax=False)
        return torch.from_numpy(self.low - self.unary) - logits


def _matrix(compatibility: float | Array, classes: int) -> Array:
    """mu as (C, C) of what to multiply messages by, up to a constant per point: Potts w is -w on the diagonal."""
    if isinstance(compatibility, float):
        return np.diag(np.full(classes, -compatibility, np.float32))
    return compatibility


def _rows_of(matrices: Array, stride: int) -> Array:
    """(K, C, C) matrices mu as `kernels.update` reads them."""
    count, classes, _ = matrices.shape
    rows = np.zeros((count, classes, stride), np.float32)
    rows[:, :, :classes] = -matrices.transpose(0, 2, 1)
    return rows.reshape(-1)


def split_classes(largest: Array, reach: float) -> tuple[Array, Array]:
    """Return (alive, dead), class numbers: `largest` is q of each, (C,), and `reach` is L, of the proof above."""
    by_size = np.argsort(largest, kind="stable")
    error, dead = 0.0, 0
    for c in by_size[:-1]:
        q = float(largest[c])
        if reach * q > math.log(2) / 2:  # the induction does not close
            break
        error += q * math.expm1(reach * q * math.exp(2 * reach * q))
        if error > TOLERANCE:
            break
        dead += 1
    return np.sort(by_size[dead:]).astype(np.int64), np.sort(by_size[:dead]).astype(np.int64)


def row_shape(classes: int) -> tuple[tuple[int, ...], int]:
    """Split a row of `classes` in registers: (lanes, blocks), where a block is 8 * len(lanes) <= 32 numbers."""
    blocks = -(-classes // 32)
    return (0,) * (-(-classes // (8 * blocks))), blocks
