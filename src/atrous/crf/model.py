"""Mean-field inference in a fully connected CRF: any pairwise terms, over any features.

Kraehenbuehl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011.

    E(x) = sum_i psi_u(x_i) + sum_{i<j} sum_m mu_m(x_i, x_j) k_m(f_i, f_j)                                  (eq. 1-3)

Algorithm 1, with Q and the energies as (C, N) and each kernel a filter on the permutohedral lattice:

    Q <- softmax(-psi_u)
    repeat:
        Qm   <- k_m * Q                     message passing, O(N)
        psi  <- sum_m mu_m Qm               compatibility transform
        Q    <- softmax(-psi_u - psi)       local update, all pixels at once

Everything here is differentiable to the unary energies and to the compatibilities, through all iterations, and runs
on any device; `fast.py` holds the same iteration as compiled CPU code, which `MeanField.run` takes when no gradient
is asked for.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf import fast
from atrous.crf.lattice import Lattice, all_finite, build_lattice, check_features
from atrous.errors import InputError, choose

NORMALIZATIONS = ("none", "before", "after", "symmetric")
_TINY = 1e-20  # keeps 1 / norm finite, as in the original code

# A forked process has none of torch's threads: its first sum would wait for them.
if sys.platform != "win32":
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Pairwise:
    """One pairwise term, mu(x_i, x_j) k(f_i, f_j) with k(f_i, f_j) = exp(-|f_i - f_j|^2 / 2), normalised.

    features: (d, N) floating; each feature divided by its standard deviation.
    compatibility: a number w or 0-d tensor, Potts: w [x_i != x_j]; a (C,) tensor, Potts with a weight per class;
        or a (C, C) tensor mu, the penalty of each pair of labels (row: the label at i; lower is more compatible).
    normalization: with D = diag(K 1), "symmetric" D^-1/2 K D^-1/2, "before" K D^-1, "after" D^-1 K, "none" K.
    name: promises that terms of one name have the same features, in models of one `order`, so that their lattice can
        be kept.
    The tensors are kept, not copied, and the lattice is built when it is first needed: do not write into them.
    """

    def __init__(
        self,
        features: Tensor,
        compatibility: float | Tensor = 1.0,
        normalization: str = "symmetric",
        name: str = "",
    ) -> None:
        check_features(features)
        self.features, self.name = features, name
        self.normalization = choose("normalization", normalization, NORMALIZATIONS)
        self.compatibility = torch.as_tensor(compatibility, device=features.device)
        if self.compatibility.ndim > 2 or len(set(self.compatibility.shape)) > 1:
            got = tuple(self.compatibility.shape)
            raise InputError(f"compatibility: wanted a number, (C,) or (C, C), got {got}")
        if not all_finite(self.compatibility):
            raise InputError("compatibility: has NaN or infinite values")

    @cached_property
    def lattice(self) -> Lattice:
        """The permutohedral lattice of the features."""
        return build_lattice(self.features)

    @cached_property
    def scales(self) -> tuple[Tensor, Tensor]:
        """What values are multiplied by before and after the filter, each (N, 1)."""
        ones = torch.ones(self.features.shape[1], 1, dtype=torch.float64, device=self.features.device)
        norm = self.lattice.filter(ones)
        return split_norm(norm, self.normalization)

    def filter(self, values: Tensor) -> Tensor:
        """Message passing: the normalised kernel applied to `values`, (N, C) -> (N, C)."""
        before, after = (scale.to(values.dtype) for scale in self.scales)
        return self.lattice.filter(values * before) * after

    def energy(self, q: Tensor) -> Tensor:
        """Expected pairwise energy of each label, (N, C) -> (N, C), up to a constant per pixel."""
        message, mu = self.filter(q), self.compatibility.to(q.dtype)
        return message @ mu.T if mu.ndim == 2 else -mu * message


def split_norm(norm: Tensor, normalization: str) -> tuple[Tensor, Tensor]:
    """Split the kernel's row sums `norm` in the factors to apply before and after the filter."""
    one = torch.ones_like(norm)
    if normalization == "symmetric":
        root = (norm + _TINY).rsqrt()
        return root, root
    if normalization == "none":
        return one, one
    inverse = 1 / (norm + _TINY)
    return (inverse, one) if normalization == "before" else (one, inverse)


class MeanField:
    """Mean-field inference with unary energies (C, N) and any number of pairwise terms.

    order: a permutation of the N points, int64, that puts near points together in memory (see `tile_order`); it
        changes the speed, not the result. Energies and results are in the given order, not in this one.
    `unary` is kept, not copied: do not write into it.
    Raises InputError where the unary is not a finite floating (C, N), or a term does not fit it.
    """

    def __init__(self, unary: Tensor, pairwise: list[Pairwise], order: Tensor | None = None) -> None:
        if unary.ndim != 2 or 0 in unary.shape or not unary.is_floating_point():
            raise InputError(f"unary: wanted a floating (C, N) array, got {tuple(unary.shape)} {unary.dtype}")
        if not all_finite(unary):
            raise InputError("unary: has NaN or infinite values; wanted finite (C, N)")
        for term in pairwise:
            if term.features.shape[1] != unary.shape[1]:
                raise InputError(f"features: wanted (d, {unary.shape[1]}), got {tuple(term.features.shape)}")
            if term.compatibility.ndim and len(term.compatibility) != len(unary):
                got = tuple(term.compatibility.shape)
                raise InputError(f"compatibility: wanted C = {len(unary)} classes, got {got}")
        self.unary = unary
        self.pairwise = pairwise
        self.order = order

    def start(self) -> Tensor:
        """Q before the first iteration, softmax(-unary): (C, N)."""
        return torch.softmax(-self.unary, dim=0)

    def step(self, q: Tensor) -> Tensor:
        """One iteration of Algorithm 1: (C, N) -> (C, N)."""
        if not q.requires_grad and q.dtype == torch.float32 and self.compiled is not None:
            return self.compiled.run(1, q)
        rows = q.T.contiguous()
        logits = -self.unary.T
        for term in self.pairwise:
            logits = logits - term.energy(rows)
        return torch.softmax(logits, dim=1).T

    def run(self, iterations: int = 10, overwrite_unary: bool = False) -> Tensor:
        """Q after `iterations` steps from `start()`: (C, N), each column sums to 1.

        overwrite_unary: the result may take the place of `unary` in memory, and nothing can be run afterwards.
        """
        if not isinstance(iterations, int | np.integer) or iterations < 0:
            raise InputError(f"iterations: wanted a whole number >= 0, got {iterations!r}")
        if iterations and self.compiled is not None:
            return self.compiled.run(iterations, overwrite_unary=overwrite_unary)
        q = self.start()
        for _ in range(iterations):
            q = self.step(q)
        return q

    def kl_divergence(self, q: Tensor) -> Tensor:
        """KL(Q || P) up to the constant log Z, a 0-d tensor; with Potts terms, falls as inference proceeds."""
        entropy = (q * q.clamp(min=_TINY).log()).sum(dtype=torch.float64)
        total = entropy + (self.unary * q).sum(dtype=torch.float64)
        if not q.requires_grad and q.dtype == torch.float32 and self.compiled is not None:
            return total + (q * self.compiled.pairwise_energy(q)).sum(dtype=torch.float64)
        rows = q.T.contiguous()
        for term in self.pairwise:
            total = total + (rows * term.energy(rows)).sum(dtype=torch.float64)
        return total

    @property
    def compiled(self) -> fast.CompiledMeanField | None:
        """The same model as compiled CPU code (`fast.py`), or None where that does not cover it.

        It covers float32 on the CPU, when nobody asks for gradients.
        """
        tensors = [self.unary, *(term.compatibility for term in self.pairwise)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return None
        return self._compiled

    @cached_property
    def _compiled(self) -> fast.CompiledMeanField | None:
        arrays = [self.unary, *(term.features for term in self.pairwise)]
        plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in arrays)
        if not (self.pairwise and plain and fast.available()):
            return None
        terms = [
            fast.Term(term.features.numpy(), _plain(term.compatibility), term.normalization, term.name)
            for term in self.pairwise
        ]
        try:
            return fast.CompiledMeanField(self.unary, terms, self.order)
        except fast.Unsuitable:
            return None


def _plain(compatibility: Tensor) -> float | NDArray[np.float32]:
    """A compatibility as compiled code takes it: a Potts weight, or a matrix, up to a constant at each point."""
    mu = compatibility.detach().float()
    if mu.ndim == 2:
        return mu.cpu().numpy()
    if mu.ndim == 1:
        return torch.diag(-mu).cpu().numpy()
    return float(mu)


def map_labels(q: Tensor) -> Tensor:
    """Maximum a posteriori labels: (C, ...) probabilities -> (...) int64."""
    return q.argmax(dim=0)
