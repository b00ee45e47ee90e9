"""Scores at the picture's size from those on the network's grid, and their sums over views.

Compiled for the CPU, the classes last in memory: the softmax is taken of each pixel as it is interpolated, and of a
view (another scale, a mirror image) a few rows exist at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from atrous.kernels import compiled_loop
from atrous.kernels.compiled_loop import LANES_8, LANES_16, Loop
from atrous.kernels.upsampling import Between, source_grid
from atrous.layers import AlignCorners, resize, zero_map

SCORE_ROWS, ADD_ROWS = (
    Loop("atrous.kernels.upsampling_kernels", name) for name in ("score_rows", "add_rows")
)
NEVER = -1e30  # a logit that no softmax sees
BAND = 2**20  # numbers of a view that exist at a time: what fits into a processor's cache


@dataclass(frozen=True)
class GrownScores:
    """Scores (N, C, *size) of a picture, between those of a network's grid; they are made when they are needed.

    logits: (N, C, h, w), which lie over the padded picture, `grown`; `size` is the part of it from the top left.
    softmax: whether the scores are probabilities, or else logits.
    """

    logits: Tensor
    grown: tuple[int, int]
    size: tuple[int, int]
    align_corners: AlignCorners = False
    softmax: bool = True

    def made(self) -> Tensor:
        """(N, C, *size) float32."""
        logits = self.logits.float()
        if compiled_loop.takes(logits):
            grid, (rows, columns) = _Grid.of(logits), self._between()
            scores = torch.empty(len(logits), *self.size, logits.shape[1])
            for corners, picture in zip(grid.corners, scores, strict=True):
                grid.score(corners, rows, columns, self.softmax, picture)
            return scores.permute(0, 3, 1, 2)
        scores = resize(logits, self.grown, self.align_corners).contiguous()  # else softmax holds a copy
        return (scores.softmax(1) if self.softmax else scores)[..., : self.size[0], : self.size[1]]

    def add_to(self, total: Tensor, flipped: bool) -> None:
        """See `add_resized`: band by band of `total`'s rows, each with the rows of these scores that it needs."""
        grid, (rows, columns) = _Grid.of(self.logits.float()), self._between()
        (height, width), classes, lines = self.size, self.logits.shape[1], total.shape[2]
        down, across = source_grid(total.shape[-2:], self.size)
        across = across.mirrored(width) if flipped else across
        band = max(1, BAND // (width * classes) * lines // height)
        for corners, picture in zip(grid.corners, total.permute(0, 2, 3, 1), strict=True):
            for top in range(0, lines, band):
                some = down.part(top, top + band)
                first, last = int(some.before[0]), int(some.behind[-1]) + 1
                view = torch.empty(1, last - first, width, classes)
                grid.score(corners, rows.part(first, last), columns, self.softmax, view[0])
                _add_rows(view, some.shifted(first), across, picture[None, top : top + band])

    def _between(self) -> tuple[Between, Between]:
        """Rows and columns of `size` on the network's grid."""
        rows, columns = source_grid(self.grown, self.logits.shape[-2:], self.align_corners)
        return rows.part(0, self.size[0]), columns.part(0, self.size[1])


class _Grid(NamedTuple):
    """corners: (N, h, w, P) float32, C padded to whole vectors."""

    corners: Tensor
    lanes: tuple[int, ...]

    @staticmethod
    def of(logits: Tensor) -> _Grid:
        count, classes, h, w = logits.shape
        lanes = LANES_8 if classes <= 8 else LANES_16
        vector = 8 * len(lanes)
        corners = torch.full((count, h, w, -(-classes // vector) * vector), NEVER)
        corners[..., :classes] = logits.detach().permute(0, 2, 3, 1)
        return _Grid(corners, lanes)

    def score(self, corners: Tensor, rows: Between, columns: Between, softmax: bool, scores: Tensor) -> None:
        """Fill `scores` (H, W, C), whose rows and columns lie so between the corners (h, w, P) of one picture."""
        grid = corners.numpy(), tuple(corners.shape), self.lanes
        SCORE_ROWS.run(len(scores), *grid, *rows, *columns, int(softmax), scores.numpy(), tuple(scores.shape))


def made(scores: Tensor | GrownScores) -> Tensor:
    return scores if isinstance(scores, Tensor) else scores.made()


def add_resized(
    total: Tensor | None, scores: Tensor | GrownScores, size: Sequence[int], flipped: bool = False
) -> Tensor:
    """`total` (N, C, *size), None for zeros, + `resize(scores, size)`, of scores (N, C, h, w) or their mirror image.

    total is added to in place.
    """
    if isinstance(scores, GrownScores):
        if compiled_loop.takes(scores.logits):
            if total is None:
                count, classes = scores.logits.shape[:2]
                total = torch.zeros(count, *size, classes).permute(0, 3, 1, 2)
            scores.add_to(total, flipped)
            return total
        scores = scores.made()
    if total is None:
        total = zero_map(scores, size)
    if scores.shape[-2:] == total.shape[-2:] and not flipped:
        total += scores
    elif compiled_loop.takes(total) and _classes_last(scores) and _classes_last(total):
        down, across = source_grid(size, scores.shape[-2:])
        across = across.mirrored(scores.shape[-1]) if flipped else across
        _add_rows(scores.permute(0, 2, 3, 1), down, across, total.permute(0, 2, 3, 1))
    else:
        total += resize(scores.flip(-1) if flipped else scores, size)
    return total


def _classes_last(scores: Tensor) -> bool:
    """Whether in a row of (N, C, H, W) float32 the classes of a pixel lie together, and then those of the next."""
    _, step, _, pixel = scores.stride()
    return scores.dtype == torch.float32 and step == 1 and pixel == scores.shape[1]


def _add_rows(scores: Tensor, down: Between, across: Between, total: Tensor) -> None:
    """Add scores (N, h, w, C), of which the last two lie close, between them to total (N, H, W, C)."""
    steps, classes = scores.stride(), scores.shape[-1]
    reach = 1 + sum((n - 1) * step for n, step in zip(scores.shape, steps, strict=True))
    flat, lanes = scores.as_strided((reach,), (1,)).numpy(), LANES_8 if classes < 16 else LANES_16
    target = total.numpy(), tuple(total.shape[1:])
    ADD_ROWS.run(len(total) * total.shape[1], flat, steps[:2], lanes, *down, *across, *target)
