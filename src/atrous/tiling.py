"""Sliding windows: overlapping crops whose scores are averaged (PSPNet sec. 5, the protocol for Cityscapes).

`slide` holds the scores of the whole picture, `slide_in_blocks` only those that windows to come still add to. Both add
the same numbers in the same order, so their averages are equal to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.layers import layout, zero_map


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of the fewest evenly spread windows that cover `length` with at least the given overlap."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def slide(
    score: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int], overlap: float = 1 / 3
) -> Tensor:
    """Average `score` over windows of `size` on images (N, 3, H, W) -> (N, C, H, W).

    A picture smaller than the window is padded with 0 (the mean colour after normalisation) and cropped back.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(0, size[1] - width), 0, max(0, size[0] - height)))
    total, count = None, torch.zeros(padded.shape[-2:], device=image.device)
    for top in window_starts(padded.shape[-2], size[0], overlap):
        for left in window_starts(padded.shape[-1], size[1], overlap):
            here = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            scores = score(padded[here])
            if total is None:
                total = zero_map(scores, padded.shape[-2:])
            total[here] += scores
            count[here] += 1
    assert total is not None
    return total.div_(count)[..., :height, :width]


@dataclass(frozen=True)
class Axis:
    """The windows along one side of a picture of `length` pixels; the last may reach beyond a shorter picture."""

    length: int
    window: int
    overlap: float

    @cached_property
    def starts(self) -> list[int]:
        return window_starts(self.length, self.window, self.overlap)

    def edge(self, i: int) -> int:
        """First pixel that window i, and none before it, reaches; behind the last: the end."""
        return self.starts[i] if i < len(self.starts) else max(self.length, self.window)

    def first_over(self, i: int) -> int:
        """The first window that reaches pixels of window i."""
        return next(k for k in range(len(self.starts)) if self.starts[k] + self.window > self.edge(i))

    @property
    def shared(self) -> int:
        """The most pixels of a window that later ones cover too."""
        return max(start + self.window - self.edge(i + 1) for i, start in enumerate(self.starts))

    def counts(self) -> Tensor:
        """How many windows cover each pixel."""
        counts = torch.zeros(self.edge(len(self.starts)))
        for start in self.starts:
            counts[start : start + self.window] += 1
        return counts


class Block(NamedTuple):
    """Averaged scores (1, C, h, w) of the pixels from (top, left) on, which are finished with window row `row`."""

    row: int
    top: int
    left: int
    scores: Tensor


def slide_in_blocks(
    score: Callable[[int, int], Tensor], rows: Axis, columns: Axis, part: range, first_row: int = 0
) -> Iterator[Block | None]:
    """The averages of `slide`, block by block, for the pixels that begin with the window columns of `part`.

    score(top, left): scores (1, C, h, w) of the window there; it is added to in place. Windows go row by row, and
    one item comes for each: the block it finishes, or None where it was only needed for its neighbours (windows left
    of `part` that reach into it, window rows above `first_row`). Blocks may reach beyond a picture that is smaller
    than the window.

    Held are the sums of `rows.shared` pixel rows over the part's width, and of one window.
    """
    across = range(columns.first_over(part.start), part.stop)
    origin = columns.edge(across.start)
    row_counts, column_counts = rows.counts(), columns.counts()
    held: Tensor | None = None  # sums of the pixel rows that the window row above shares with this one
    shared = 0
    for i in range(rows.first_over(first_row), len(rows.starts)):
        top, below = rows.edge(i), rows.edge(i + 1)
        beside: Tensor | None = None  # sums of the columns that the window before shares with this one
        for j in across:
            left, right = columns.edge(j), columns.edge(j + 1)
            sums = score(top, left)
            begun = 0
            if beside is not None:
                begun = beside.shape[-1]
                sums[..., :begun] += beside
            if held is None:
                width = columns.edge(part.stop - 1) + columns.window - origin
                held = zero_map(sums, (rows.shared, width))
            new = slice(left + begun - origin, left + columns.window - origin)
            sums[..., :shared, begun:] += held[..., :shared, new]
            finished = None
            if i >= first_row and j >= part.start:
                count = row_counts[top:below, None] * column_counts[left:right]
                mean = sums[..., : below - top, : right - left] / count.to(sums.device)
                finished = Block(i, top, left, mean)
            rest = sums[..., below - top :, : right - left]
            held[..., : rest.shape[-2], left - origin : right - origin] = rest
            beside = sums[..., right - left :].clone(memory_format=layout(sums))
            del sums, rest  # their memory is free for the next window
            yield finished
            del finished
        shared = top + rows.window - below


def parts(columns: Axis, bytes_per_column: int, limit: int) -> list[range]:
    """Window columns in the fewest, even parts whose held sums stay within `limit` bytes, at least one in each."""
    starts = columns.starts
    step = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    most = len(starts)
    if most > 1 and bytes_per_column * columns.edge(most) > limit:
        again = -(-columns.shared // step)  # windows left of a part that reach into it
        room = limit / bytes_per_column - columns.window - 2  # starts are rounded
        most = max(1, int(room // step + 1 - again))
    count = -(-len(starts) // most)
    edges = [round(k * len(starts) / count) for k in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]
