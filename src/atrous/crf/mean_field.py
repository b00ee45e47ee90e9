"""DenseCRF: sharpen a segmentation with the fully connected CRF of DeepLab v1 and v2 (1412.7062, sec. 4.2).

    k(i, j) = bi_w  exp(-|p_i - p_j|^2 / 2 bi_xy_std^2 - |I_i - I_j|^2 / 2 bi_rgb_std^2)      near and alike: appearance
            + pos_w exp(-|p_i - p_j|^2 / 2 pos_xy_std^2)                                      near: smoothness

p: position in pixels; I: colour, RGB 0..255. Potts compatibility, kernels normalised symmetrically.
"""

from __future__ import annotations

from numbers import Real
from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.model import MeanField, Pairwise
from atrous.crf.unary import unary_from_probabilities
from atrous.errors import InputError

Array = NDArray[np.generic]
_T = TypeVar("_T", Tensor, Array)
_SUM_TOLERANCE = 1e-2  # float16 softmax over 150 classes strays by a few 1e-3
_TILE = 64  # pixels; a tile's lattice rows fit in a core's second-level cache


class DenseCRF:
    """The dense CRF of the papers, by the names of their parameters.

    iter_max: mean-field iterations. pos_w, pos_xy_std: weight and deviation (pixels) of the smoothness kernel.
    bi_w, bi_xy_std, bi_rgb_std: weight, deviation in pixels and in colour (0..255) of the appearance kernel.
    The defaults are common values for VOC. Weights may be 0-d tensors that require gradients.
    Raises InputError for a deviation <= 0, a negative weight or iteration count.
    """

    def __init__(
        self,
        iter_max: int = 10,
        pos_w: float | Tensor = 3,
        pos_xy_std: float = 1,
        bi_w: float | Tensor = 4,
        bi_xy_std: float = 67,
        bi_rgb_std: float = 3,
    ) -> None:
        if isinstance(iter_max, bool) or not isinstance(iter_max, int | np.integer) or iter_max < 0:
            raise InputError(f"iter_max: wanted a whole number >= 0, got {iter_max!r}")
        for name, std in (("pos_xy_std", pos_xy_std), ("bi_xy_std", bi_xy_std), ("bi_rgb_std", bi_rgb_std)):
            if not 0 < _number(name, std) < float("inf"):
                raise InputError(f"{name}: wanted a positive number, got {std}")
        for name, weight in (("pos_w", pos_w), ("bi_w", bi_w)):
            if not 0 <= _number(name, weight) < float("inf"):
                raise InputError(f"{name}: wanted a number >= 0, got {weight}")
        self.iter_max = int(iter_max)
        self.pos_w, self.pos_xy_std = pos_w, float(pos_xy_std)
        self.bi_w, self.bi_xy_std, self.bi_rgb_std = bi_w, float(bi_xy_std), float(bi_rgb_std)

    def __repr__(self) -> str:
        names = ("iter_max", "pos_w", "pos_xy_std", "bi_w", "bi_xy_std", "bi_rgb_std")
        return f"DenseCRF({', '.join(f'{name}={_number(name, getattr(self, name)):g}' for name in names)})"

    @overload
    def __call__(self, image: Array | Tensor, probabilities: Tensor) -> Tensor: ...
    @overload
    def __call__(self, image: Array | Tensor, probabilities: Array) -> NDArray[np.float32]: ...
    def __call__(self, image: Array | Tensor, probabilities: Array | Tensor) -> Tensor | Array:
        """Return the refined probabilities, float32 of the shape given; numpy in, numpy out.

        image: (H, W, 3) uint8 RGB. probabilities: (C, H, W) floating, 0..1, summing to 1 over C.
        Batched: image (N, H, W, 3), probabilities (N, C, H, W). Differentiable where `probabilities` or a weight
        requires gradients (float64 stays float64 then). Raises InputError for any other shape, dtype or value.
        """
        if isinstance(probabilities, np.ndarray):
            if isinstance(image, Tensor):
                image = image.cpu().numpy()
            result = self(image, _tensor("probabilities", probabilities))
            return result.numpy()
        probabilities = _tensor("probabilities", probabilities)
        check_probabilities(probabilities)
        learned = any(
            isinstance(x, Tensor) and x.requires_grad for x in (probabilities, self.pos_w, self.bi_w)
        )
        scores = at_least_float32(probabilities) if learned else probabilities.float()
        return self._infer(image, unary_from_probabilities(scores), own=True)

    def infer(self, image: Array | Tensor, unary: Tensor) -> Tensor:
        """As calling it, but from unary energies (C, H, W) or (N, C, H, W) in place of probabilities."""
        return self._infer(image, unary)

    def _infer(self, image: Array | Tensor, unary: Tensor, own: bool = False) -> Tensor:
        """`infer`, which may take the memory of `unary` if that is its `own`."""
        pixels = check_image(image, unary).to(unary.device)
        if unary.ndim == 4:
            return torch.stack([self._infer(x, u, own) for x, u in zip(pixels, unary, strict=True)])
        weights = [torch.as_tensor(w) for w in (self.pos_w, self.bi_w)]
        position = f"position {tuple(pixels.shape[:2])} / {self.pos_xy_std}"
        terms = [
            Pairwise(features, weight, name=name)
            for features, weight, name in (
                (position_features(pixels.shape[:2], self.pos_xy_std, unary.device), weights[0], position),
                (bilateral_features(pixels, self.bi_xy_std, self.bi_rgb_std), weights[1], ""),
            )
            if weight.requires_grad or weight > 0
        ]
        order = tile_order(pixels.shape[0], pixels.shape[1])
        result = MeanField(unary.flatten(1), terms, order).run(self.iter_max, overwrite_unary=own)
        return result.view(unary.shape) if result.is_contiguous() else result.reshape(unary.shape)


def _number(name: str, value: object) -> float:
    """A real number, or that in a 0-d tensor or array, as a float; InputError for anything else."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise InputError(f"{name}: wanted a number, got {value!r}")
    return float(value)


def position_features(
    size: tuple[int, ...], std: float | tuple[float, ...], device: torch.device | str = "cpu"
) -> Tensor:
    """Features of the smoothness kernel, (2, H*W) float32: x and y over `std`, a number or (x, y)."""
    height, width = size
    x_std, y_std = (std, std) if isinstance(std, (int, float)) else std
    x = torch.arange(width, dtype=torch.float32, device=device) / x_std
    y = torch.arange(height, dtype=torch.float32, device=device) / y_std
    return torch.stack([x.repeat(height), y.repeat_interleave(width)])


def bilateral_features(
    image: Tensor, xy_std: float | tuple[float, ...], rgb_std: float | tuple[float, ...]
) -> Tensor:
    """Features of the appearance kernel, (5, H*W) float32: x, y over `xy_std`; r, g, b over `rgb_std`."""
    position = position_features(image.shape[:2], xy_std, image.device)
    colour = image.reshape(-1, 3).T.to(torch.float32)
    return torch.cat([position, colour / torch.tensor(rgb_std, device=image.device).expand(3)[:, None]])


def tile_order(height: int, width: int, tile: int = _TILE) -> Tensor:
    """The pixels of a picture tile by tile, (H*W,) int64: neighbours in the picture are neighbours in memory."""
    index = torch.arange(height * width).view(height, width)
    return torch.cat([piece.reshape(-1) for rows in index.split(tile) for piece in rows.split(tile, dim=1)])


def check_probabilities(probabilities: Tensor) -> None:
    """Raise an InputError unless `probabilities` is (C, H, W) or (N, C, H, W), floating, and sums to 1 over C."""
    shape = tuple(probabilities.shape)
    if probabilities.ndim not in (3, 4) or 0 in shape:
        raise InputError(f"probabilities: wanted (C, H, W) or (N, C, H, W), got {shape}")
    if not probabilities.is_floating_point():
        raise InputError(f"probabilities: wanted floating values 0..1 of {shape}, got {probabilities.dtype}")
    total = probabilities.detach().sum(-3, dtype=torch.float32)
    if not bool(torch.isfinite(total).all()):
        raise InputError(f"probabilities: has NaN or infinite values; wanted {shape} with values 0..1")
    low, least, most = float(probabilities.detach().amin()), float(total.min()), float(total.max())
    if low < -1e-6 or most > 1 + _SUM_TOLERANCE or least < 1 - _SUM_TOLERANCE:
        wanted = "probabilities (C, H, W) that are >= 0 and sum to 1 over C: apply softmax to scores first"
        raise InputError(
            f"probabilities: wanted {wanted}; got values from {low:.3g}, sums from {least:.3g} to {most:.3g}"
        )


def check_image(image: Array | Tensor, unary: Tensor) -> Tensor:
    """Return `image` as a tensor; raise an InputError unless it is uint8 RGB of the size of `unary`."""
    pixels = _tensor("image", image)
    wanted = (*unary.shape[:-3], *unary.shape[-2:], 3)
    if tuple(pixels.shape) != wanted:
        raise InputError(
            f"image: wanted {wanted} to match the scores {tuple(unary.shape)}, got {tuple(pixels.shape)}"
        )
    if pixels.dtype != torch.uint8:
        raise InputError(f"image: wanted uint8 RGB 0..255 of {wanted}, got {pixels.dtype}")
    return pixels


def _tensor(name: str, array: Array | Tensor) -> Tensor:
    if isinstance(array, Tensor):
        return array
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: wanted a numeric numpy array or tensor, got {getattr(array, 'dtype', type(array))}"
        )
    # torch wants positive strides and native, writable memory
    return torch.from_numpy(np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"]))


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
