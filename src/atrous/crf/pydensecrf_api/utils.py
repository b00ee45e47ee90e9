"""The helpers of pydensecrf.utils: unary energies and features as numpy arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.crf.pydensecrf_api.deviations import deviations
from atrous.errors import InputError

Array = NDArray[Any]
_log = logging.getLogger(__name__)


def unary_from_labels(labels: Array, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> Array:
    """Energies (n_labels, N) float32 of a label map that is right with probability `gt_prob`, in (0, 1).

    zero_unsure: label 0 means "any", and label k is row k - 1; else label k is row k.
    """
    if not 0 < gt_prob < 1:
        raise InputError(f"gt_prob: wanted a number between 0 and 1, both excluded, got {gt_prob}")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels: wanted integers, got {labels.dtype}")
    rows = labels.reshape(-1).astype(np.int64) - int(zero_unsure)
    lowest = -1 if zero_unsure else 0
    if rows.size and (rows.min() < lowest or rows.max() >= n_labels):
        first = int(zero_unsure)
        got = f"{rows.min() + first}..{rows.max() + first}"
        raise InputError(f"labels: wanted values 0..{n_labels - 1 + first}, got {got}")
    other = (1 - gt_prob) / (n_labels - 1) if n_labels > 1 else 1.0
    energy = np.full((n_labels, rows.size), -np.log(other), np.float32)
    known = np.flatnonzero(rows >= 0)
    energy[rows[known], known] = -np.log(gt_prob)
    energy[:, rows < 0] = np.log(n_labels)
    return energy


def unary_from_softmax(sm: Array, scale: float | None = None, clip: float | None = 1e-5) -> Array:
    """Energies (C, N) float32 of probabilities `sm`, (C, ...).

    scale: in (0, 1], mixes `sm` with 1 - scale of the uniform distribution. clip: smallest probability.
    """
    sm = np.asarray(sm)
    if scale is not None:
        if not 0 < scale <= 1:
            raise InputError(f"scale: wanted a number in (0, 1], got {scale}")
        mixed = np.result_type(sm, np.float32)  # a sum in float16 would be off by 1e-3
        sm = (scale * sm).astype(mixed) + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return -np.log(sm).reshape(len(sm), -1).astype(np.float32)


def compute_unary(labels: Array, M: int, GT_PROB: float = 0.5) -> Array:  # noqa: N803
    """The old name of `unary_from_labels`."""
    _log.warning("compute_unary is deprecated, use unary_from_labels")
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Array, GT_PROB: float = 1) -> Array:  # noqa: N803
    """The old name of `unary_from_softmax`, without clipping."""
    _log.warning("softmax_to_unary is deprecated, use unary_from_softmax")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Array:
    """Position features (d, N) float32 of a grid of `shape`. sdims: deviation of each axis, or one for all."""
    grid = np.indices(tuple(shape), dtype=np.float32).reshape(len(shape), -1)
    return grid / np.asarray(deviations("sdims", sdims, len(shape)), np.float32)[:, None]


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: Array, chdim: int = -1
) -> Array:
    """Position and channel features (d + channels, N) float32 of a picture or volume.

    sdims: deviation of each spatial axis, schan: of each channel; or one for all. chdim: the axis of `img` that holds
    the channels; -1: there is none.
    """
    img = np.asarray(img)
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    position = create_pairwise_gaussian(sdims, channels.shape[1:])
    deviation = np.asarray(deviations("schan", schan, len(channels)), np.float32)
    values = channels.reshape(len(channels), -1).astype(np.float32) / deviation[:, None]
    return np.concatenate([position, values])
