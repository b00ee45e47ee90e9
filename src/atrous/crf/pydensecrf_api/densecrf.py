"""DenseCRF and DenseCRF2D as pydensecrf.densecrf has them."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.mean_field import bilateral_features, position_features, tile_order
from atrous.crf.model import MeanField, Pairwise
from atrous.crf.pydensecrf_api.deviations import deviations
from atrous.errors import InputError

Array = NDArray[Any]

# How kernels may be parametrised, for learning them. Every kind gives the same inference.
CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = 0, 1, 2
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = 0, 1, 2, 3
_NORMALIZATIONS = ("none", "before", "after", "symmetric")


IMPOSSIBLE = 1e4  # the energy that +inf, -log of probability 0, becomes: exp(-1e4) is 0 in float32 too


class ConstUnary:
    """Unary energies (C, N) float32 that do not depend on anything. +inf: the label is impossible."""

    def __init__(self, u: Array) -> None:
        self.energy = _float32("u", u)


class LogisticUnary:
    """Unary energies L f, from weights L (C, K) and features f (K, N), both float32."""

    def __init__(self, L: Array, f: Array) -> None:  # noqa: N803
        self.energy = _float32("L", L) @ _float32("f", f)


class DenseCRF:
    """A CRF over `nvar` variables with `nlabels` labels."""

    def __init__(self, nvar: int, nlabels: int) -> None:
        if nvar < 1 or nlabels < 1:
            raise InputError(f"nvar, nlabels: wanted numbers >= 1, got {nvar} and {nlabels}")
        self._nvar, self._nlabels = int(nvar), int(nlabels)
        self._unary = torch.zeros(self._nlabels, self._nvar)
        self._pairwise: list[Pairwise] = []
        self._order: Tensor | None = None
        self._built: MeanField | None = None

    def addPairwiseEnergy(  # noqa: N802
        self,
        features: Array,
        compat: float | Array,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over `features`, (d, nvar) float32. compat: number (Potts), (C,) or (C, C) float32."""
        tensor = _float32("features", features)
        if tensor.ndim != 2 or tensor.shape[1] != self._nvar:
            raise InputError(f"features: Bad shape (Need (?, {self._nvar}), got {tuple(tensor.shape)})")
        self._add(tensor, compat, kernel, normalization)

    def setUnary(self, u: ConstUnary | LogisticUnary) -> None:  # noqa: N802
        """Set the unary energies from one of the unary classes."""
        if tuple(u.energy.shape) != (self._nlabels, self._nvar):
            need = (self._nlabels, self._nvar)
            raise InputError(f"u: Bad shape for unary energy (Need {need}, got {tuple(u.energy.shape)})")
        if bool(torch.isnan(u.energy).any() | torch.isneginf(u.energy).any()):
            raise InputError("u: has NaN or -inf; wanted energies, +inf where a label is impossible")
        self._unary, self._built = u.energy.masked_fill_(torch.isposinf(u.energy), IMPOSSIBLE), None

    def setUnaryEnergy(self, u: Array, f: Array | None = None) -> None:  # noqa: N802
        """Set the unary energies u (C, nvar), or u f with u (C, K) and f (K, nvar); float32."""
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def inference(self, niter: int) -> Array:
        """Run `niter` mean-field iterations: Q (C, nvar) float32."""
        return self._model().run(niter).numpy()

    def startInference(self) -> tuple[Array, None, None]:  # noqa: N802
        """Return Q before the first iteration, and two placeholders for pydensecrf's work space."""
        return np.ascontiguousarray(self._model().start().numpy()), None, None

    def stepInference(self, Q: Array, tmp1: Any = None, tmp2: Any = None) -> None:  # noqa: N802, N803
        """Do one iteration on Q, in place."""
        Q[...] = self._model().step(torch.from_numpy(np.ascontiguousarray(Q))).numpy()

    def klDivergence(self, Q: Array) -> float:  # noqa: N802, N803
        """KL divergence of Q from the model, up to a constant."""
        return float(self._model().kl_divergence(torch.from_numpy(np.ascontiguousarray(Q))))

    def _model(self) -> MeanField:
        if self._built is None:
            self._built = MeanField(self._unary, self._pairwise, self._order)
        return self._built

    def _add(self, features: Tensor, compat: float | Array, kernel: int, normalization: int) -> None:
        if kernel not in (CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL):
            raise InputError(f"kernel: wanted CONST_KERNEL, DIAG_KERNEL or FULL_KERNEL, got {kernel!r}")
        if not isinstance(normalization, int | np.integer) or not 0 <= normalization < len(_NORMALIZATIONS):
            raise InputError(f"normalization: wanted one of the NORMALIZE_ constants, got {normalization!r}")
        if isinstance(compat, Number):
            mu = torch.tensor(compat, dtype=torch.float32)
        else:
            mu = _float32("compat", compat)
            if mu.ndim not in (1, 2) or set(mu.shape) != {self._nlabels}:
                need = f"a number, ({self._nlabels},) or ({self._nlabels}, {self._nlabels})"
                raise InputError(f"compat: wanted {need}, got {tuple(mu.shape)}")
            mu = -mu if mu.ndim == 1 else (mu + mu.T) / 2
        self._pairwise.append(Pairwise(features, mu, _NORMALIZATIONS[normalization]))
        self._built = None


class DenseCRF2D(DenseCRF):
    """A CRF over the pixels of a picture of width `w` and height `h`, row by row."""

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        super().__init__(w * h, nlabels)
        self._w, self._h = int(w), int(h)
        self._order = tile_order(self._h, self._w)

    def addPairwiseGaussian(  # noqa: N802
        self,
        sxy: float | tuple[float, float],
        compat: float | Array,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over position; sxy: deviation in pixels, one number or (x, y)."""
        x, y = deviations("sxy", sxy, 2)
        self._add(position_features((self._h, self._w), (x, y)), compat, kernel, normalization)

    def addPairwiseBilateral(  # noqa: N802
        self,
        sxy: float | tuple[float, float],
        srgb: float | tuple[float, float, float],
        rgbim: Array,
        compat: float | Array,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over position and colour; srgb: deviation of colours 0..255; rgbim: (h, w, 3) uint8."""
        x, y = deviations("sxy", sxy, 2)
        r, g, b = deviations("srgb", srgb, 3)
        image = np.asarray(rgbim)
        if image.dtype != np.uint8 or image.shape != (self._h, self._w, 3):
            need = f"uint8 of {(self._h, self._w, 3)}"
            other = "; for other pictures use utils.create_pairwise_bilateral and addPairwiseEnergy"
            raise InputError(f"rgbim: wanted {need}, got {image.dtype} of {image.shape}{other}")
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        self._add(bilateral_features(pixels, (x, y), (r, g, b)), compat, kernel, normalization)


def _float32(name: str, array: Any) -> Tensor:
    """A copy of a float32 array, as a tensor; pydensecrf takes no other dtype, and its users rely on the error."""
    try:
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor that requires gradients or is on a GPU
        raise InputError(f"{name}: wanted a float32 array; {str(error).splitlines()[0]}") from None
    if array.dtype != np.float32:
        raise InputError(f"{name}: wanted a float32 array, got {array.dtype}")
    return torch.from_numpy(np.array(array, order="C"))
