"""Scores at the picture's size from those on the network's grid, and their sums over views.

Compiled for the CPU, the classes last in memory: the softmax is taken of each pixel as it is interpolated, and of a
view (another scale, a mirror image) a few rows exist at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous import compiled_loop, openmp
from atrous.compiled_loop import Loop
from atrous.layers import AlignCorners, resize, zero_map
from atrous.upsampling import source_points

SCORE_ROWS, ADD_ROWS = (Loop("atrous.upsampling_kernels", name) for name in ("score_rows", "add_rows"))
NEVER = -1e30  # a logit that no softmax sees
BAND = 2**20  # numbers of a view that exist at a time: what fits into a processor's cache


class Between(NamedTuple):
    """For each point of a line the point of a coarser or finer one before it, the one behind, and the share of that."""

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
        if logits.device.type == "cpu" and compiled_loop.available():
            grid, (rows, columns) = _Grid.of(logits), self._between()
            scores = torch.empty(len(logits), *self.size, logits.shape[1])
            for corners, picture in zip(grid.corners, scores, strict=True):
                grid.score(corners, rows, columns, self.softmax, picture)
            return scores.permute(0, 3, 1, 2)
        scores = resize(
            logits, self.grown, self.align_corners
        ).contiguous()  # softmax would copy them so, and hold both
        return (scores.softmax(1) if self.softmax else scores)[..., : self.size[0], : self.size[1]]

    def _between(self) -> list[Between]:
        """Rows and columns of `size` on the network's grid."""
        sides = zip(self.grown, self.logits.shape[-2:], self.size, strict=True)
        return [Between(*source_points(n, h, self.align_corners)).part(0, kept) for n, h, kept in sides]

    def add_to(self, total: Tensor, flipped: bool) -> None:
        """See `add_resized`: band by band of `total`'s rows, each with the rows of these scores that it needs."""
        grid, (rows, columns) = _Grid.of(self.logits.float()), self._between()
        classes, (height, width) = self.logits.shape[1], total.shape[-2:]
        down, across = (
            Between(*source_points(n, h, False)) for n, h in zip((height, width), self.size, strict=True)
        )
        across = across.mirrored(self.size[1]) if flipped else across
        of_view = max(2, BAND // (self.size[1] * classes))
        band = max(1, int((of_view - 1) * height / self.size[0]))
        view = torch.empty(1)
        for corners, picture in zip(grid.corners, total.permute(0, 2, 3, 1), strict=True):
            for top in range(0, height, band):
                some = down.part(top, top + band)
                first, last = int(some.before[0]), int(some.behind[-1]) + 1
                if view.numel() < (last - first) * self.size[1] * classes:
                    view = torch.empty((last - first) * self.size[1] * classes)
                lines = view[: (last - first) * self.size[1] * classes].view(
                    last - first, self.size[1], classes
                )
                grid.score(corners, rows.part(first, last), columns, self.softmax, lines)
                _add_rows(lines[None], some.shifted(first), across, picture[None, top : top + band])


class _Grid(NamedTuple):
    """corners: (N, h, w, P) float32, C padded to whole vectors."""

    corners: Tensor
    lanes: tuple[int, ...]

    @staticmethod
    def of(logits: Tensor) -> _Grid:
        count, classes, h, w = logits.shape
        lanes = openmp.lanes(8 if classes <= 8 else 16)
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
        like = scores.logits
        if like.device.type == "cpu" and compiled_loop.available():
            if total is None:
                total = torch.zeros(len(like), *size, like.shape[1]).permute(0, 3, 1, 2)
            scores.add_to(total, flipped)
            return total
        scores = scores.made()
    if total is None:
        total = zero_map(scores, size)
    _, step, _, pixel = scores.stride()
    lie_so = step == 1 and pixel == scores.shape[1] and total.permute(0, 2, 3, 1).is_contiguous()
    plain = scores.dtype == total.dtype == torch.float32 and total.device.type == "cpu"
    if scores.shape[-2:] == total.shape[-2:] and not flipped:
        total += scores
    elif plain and lie_so and compiled_loop.available():
        down, across = (
            Between(*source_points(n, h, False)) for n, h in zip(size, scores.shape[-2:], strict=True)
        )
        across = across.mirrored(scores.shape[-1]) if flipped else across
        _add_rows(scores.permute(0, 2, 3, 1), down, across, total.permute(0, 2, 3, 1))
    else:
        total += resize(scores.flip(-1) if flipped else scores, size)
    return total


def _add_rows(scores: Tensor, down: Between, across: Between, total: Tensor) -> None:
    """Add scores (N, h, w, C), of which the last two lie close, between them to total (N, H, W, C)."""
    steps, classes = scores.stride(), scores.shape[-1]
    reach = 1 + sum((n - 1) * step for n, step in zip(scores.shape, steps, strict=True))
    flat, lanes = scores.as_strided((reach,), (1,)).numpy(), openmp.lanes(8 if classes < 16 else 16)
    target = total.numpy(), tuple(total.shape[1:])
    ADD_ROWS.run(len(total) * total.shape[1], flat, steps[:2], lanes, *down, *across, *target)
