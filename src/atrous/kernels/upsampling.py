"""From coarse scores to labels at the picture's size, without the scores at that size.

`resize(logits, size).argmax(0)` makes C numbers for every pixel to keep one of them. Inside a cell of the coarse grid
a bilinear score lies between its four corners; so a class whose highest corner is below some other class's lowest one
wins nowhere in the cell. What is left are one to three classes for most cells, whatever C is: compiled, only those are
interpolated. Without numba, and on other devices, the rows are done in bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.kernels import compiled_loop
from atrous.kernels.compiled_loop import LANES_8, LANES_16, Loop
from atrous.layers import AlignCorners, resize

BAND = 32  # rows
LABEL_CELLS, HIGHEST_PIXELS = (
    Loop("atrous.kernels.upsampling_kernels", name) for name in ("label_cells", "highest_pixels")
)


def resized_labels(logits: Tensor, size: Sequence[int], align_corners: AlignCorners = False) -> Tensor:
    """`resize(logits[None], size, align_corners)[0].argmax(0)`, but where two scores tie up to rounding.

    logits: (C, h, w) floating, any device. Returns (H, W) uint8, int16 from 257 classes on, on that device.
    """
    height, width = size
    if compiled_loop.takes(logits):
        return torch.from_numpy(_in_cells(logits, height, width, align_corners))
    if logits.shape[-2:] == (height, width) or height <= BAND:
        return highest(resize(logits[None].float(), size, align_corners)[0])
    return _in_bands(logits.float(), height, width, align_corners)


def label_dtype(classes: int) -> torch.dtype:
    return torch.uint8 if classes <= 256 else torch.int16


def highest(scores: Tensor) -> Tensor:
    """The class of the highest score, the first of equal ones: (..., C, H, W) to (..., H, W) uint8, int16 from 257 on.

    `argmax` over all but the last dimension is ten times as slow on a CPU.
    """
    dtype = label_dtype(scores.shape[-3])
    if scores.device.type != "cpu":
        return scores.argmax(-3).to(dtype)
    last = scores.movedim(-3, -1)
    if last.is_contiguous() and scores.dtype == torch.float32 and compiled_loop.takes(scores):
        labels, classes = torch.empty(last.shape[:-1], dtype=dtype), last.shape[-1]
        lanes = LANES_8 if classes < 16 else LANES_16
        HIGHEST_PIXELS.run(labels.numel(), last.detach().numpy(), classes, lanes, labels.numpy())
        return labels
    first, *others = scores.unbind(-3)
    best, labels = first.clone(), torch.zeros(first.shape, dtype=dtype)
    for label, score in enumerate(others, 1):
        labels.masked_fill_(score > best, label)
        torch.maximum(best, score, out=best)
    return labels


def _in_bands(logits: Tensor, height: int, width: int, align_corners: AlignCorners) -> Tensor:
    """Rows first, band by band, each to its full width and to its label."""
    (above, below, share), h = source_points(height, logits.shape[1], align_corners), logits.shape[1]
    result = torch.empty(height, width, dtype=label_dtype(len(logits)), device=logits.device)
    wide = resize(logits[None], (h, width), align_corners)[0]
    for first in range(0, height, BAND):
        rows = slice(first, min(first + BAND, height))
        weight = torch.from_numpy(share[rows]).to(logits.device)[:, None]
        band = wide[:, above[rows]] * (1 - weight) + wide[:, below[rows]] * weight
        result[rows] = highest(band)
    return result


def _in_cells(
    logits: Tensor, height: int, width: int, align_corners: AlignCorners
) -> NDArray[np.uint8 | np.int16]:
    """Cell by cell of the grid."""
    classes, h, w = logits.shape
    corners = logits.detach().float().permute(1, 2, 0).contiguous().numpy()
    rows, columns = source_grid((height, width), (h, w), align_corners)
    labels = np.empty((height, width), np.uint8 if classes <= 256 else np.int16)
    cells = [np.searchsorted(axis[0], np.arange(n + 1)) for axis, n in ((rows, h), (columns, w))]
    LABEL_CELLS.run(h, corners, corners.shape, *cells, *rows[1:], *columns[1:], labels, width)
    return labels


class Between(NamedTuple):
    """For each point of a line that of another line before it, the one behind, and the share of that, (n,) each."""

    before: NDArray[np.int64]
    behind: NDArray[np.int64]
    share: NDArray[np.float32]

    def part(self, first: int, last: int) -> Between:
        here = slice(first, last)
        return Between(self.before[here], self.behind[here], self.share[here])

    def shifted(self, by: int) -> Between:
        return Between(self.before - by, self.behind - by, self.share)

    def mirrored(self, source: int) -> Between:
        return Between(source - 1 - self.before, source - 1 - self.behind, self.share)


def source_grid(
    size: Sequence[int], source: Sequence[int], align_corners: AlignCorners = False
) -> tuple[Between, Between]:
    """`source_points` down and across, for (H, W) among (h, w)."""
    rows, columns = (source_points(n, among, align_corners) for n, among in zip(size, source, strict=True))
    return rows, columns


def source_points(size: int, source: int, align_corners: AlignCorners) -> Between:
    """Where `size` points lie among `source` ones, as torch has it, in float32 as torch computes it."""
    out = np.arange(size, dtype=np.float32)
    if align_corners is True:
        at = out * np.float32((source - 1) / (size - 1) if size > 1 else 0)
    elif align_corners == "asymmetric":
        at = out * np.float32(source / size)
    else:
        at = np.maximum((out + np.float32(0.5)) * np.float32(source / size) - np.float32(0.5), np.float32(0))
    before = np.minimum(at.astype(np.int64), source - 1)
    return Between(before, np.minimum(before + 1, source - 1), (at - before).astype(np.float32))
