"""Words on pictures: class names inside the larger regions of a label map, and legends. Arrays are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.data.labels import Labels

Picture = NDArray[np.uint8]

INK, PAPER = (30, 30, 30), (255, 255, 255)
GRID = 256  # cells of the longer side, at most, on which the places of names are looked for
SMALLEST = 11  # pixels of a font that can be read
LEAST_SHARE = 0.004  # of the picture: what is smaller gets no name


def letter_size(height: int, width: int) -> int:
    """Pixels of the font that suits a picture of this size; 0 where none can be read on it."""
    size = round(0.034 * float(np.sqrt(height * width)))
    return 0 if min(height, width) < 2 * SMALLEST else min(96, max(SMALLEST, size))


def write_names(
    picture: Picture, mask: NDArray[Any], labels: Labels, leave_out: Sequence[int] = ()
) -> Picture:
    """The picture (H, W, 3) with the name of each larger region of `mask` (H, W) inside it, white with a dark rim.

    A name stands where its whole box lies within the region, as far from the region's border as that allows; the
    font shrinks until it fits. Regions that are too small for their name, and classes of `leave_out`, get none.
    """
    size = letter_size(*mask.shape)
    if not size:
        return picture
    sheet = Image.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    step = -(-max(mask.shape) // GRID)
    small = mask[step // 2 :: step, step // 2 :: step]
    region = regions(small)
    kinds, first, cells = np.unique(region, return_index=True, return_counts=True)
    inner = depth(region)
    for kind, at, count in sorted(zip(kinds, first, cells, strict=True), key=lambda it: -it[2]):
        index = int(small.flat[at])
        if count < LEAST_SHARE * small.size:
            break
        if index < len(labels) and index not in leave_out:
            _write_inside(draw, shown_name(labels, index), region == kind, inner, step, size)
    return np.asarray(sheet)


def _write_inside(
    draw: ImageDraw.ImageDraw, name: str, inside: NDArray[np.bool_], inner: NDArray[Any], step: int, size: int
) -> None:
    """Write the name into one region of the grid, in the largest font down from `size` that fits."""
    while size >= SMALLEST:
        font = ImageFont.load_default(size)
        rim = max(2, size // 8)
        width, height = font.getlength(name) + 2 * rim, 1.25 * size + 2 * rim
        box = int(-(-height // step)) + 1, int(-(-width // step)) + 1
        if (centre := place(inside, inner, box)) is not None:
            y, x = ((cell + 0.5) * step for cell in centre)
            draw.text((x, y), name, PAPER, font, anchor="mm", stroke_width=rim, stroke_fill=INK)
            return
        size = int(0.8 * size)


def place(inside: NDArray[np.bool_], inner: NDArray[Any], box: tuple[int, int]) -> tuple[float, float] | None:
    """Centre (y, x), in cells, of a box (height, width) of which every cell is `inside`; None where there is none.

    Of all places the one whose centre has the greatest value of `inner`.
    """
    height, width = box
    if height > inside.shape[0] or width > inside.shape[1]:
        return None
    total = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1), np.int64)
    total[1:, 1:] = inside.cumsum(0).cumsum(1)
    held = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    fits = held == height * width
    if not fits.any():
        return None
    centres = inner[height // 2 :, width // 2 :][: fits.shape[0], : fits.shape[1]]
    top, left = np.unravel_index(int(np.where(fits, centres, -1).argmax()), fits.shape)
    return int(top) + (height - 1) / 2, int(left) + (width - 1) / 2


def regions(mask: NDArray[Any]) -> NDArray[np.int64]:
    """(H, W) labels -> (H, W) numbers, the same for two cells that are joined through neighbours of their label.

    Neighbours share a side. Each region is numbered by its first cell, row by row.
    """
    begins = np.ones(mask.shape, bool)  # a run of one label in a row
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    run = begins.cumsum().reshape(mask.shape) - 1
    touching = (mask[1:] == mask[:-1]) & (begins[1:] | begins[:-1])  # once for each pair of runs
    above, below = run[:-1][touching], run[1:][touching]
    number = np.flatnonzero(begins)
    while True:
        least = np.minimum(number[above], number[below])
        joined = number.copy()
        np.minimum.at(joined, above, least)
        np.minimum.at(joined, below, least)
        joined = np.minimum(joined, joined[run.flat[joined]])  # what its first cell has learned
        if np.array_equal(joined, number):
            return number[run]
        number = joined


def depth(region: NDArray[Any]) -> NDArray[np.int64]:
    """For each cell how many cells the nearest one of another region, or beyond the rim, is away: max(|dx|, |dy|)."""
    height, width = region.shape
    padded = np.pad(region, 1, constant_values=-1)
    inside = np.zeros(padded.shape, bool)
    inner = inside[1:-1, 1:-1]
    inner[:] = True
    for y in range(3):
        for x in range(3):
            inner &= padded[y : y + height, x : x + width] == region
    far = np.ones(region.shape, np.int64)
    while inner.any():
        far += inner
        rows = inside[:-2] & inside[1:-1] & inside[2:]
        inner[:] = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return far


def shown_name(labels: Labels, index: int) -> str:
    return " ".join(labels.names[index].split())


def shares(mask: NDArray[Any], count: int) -> NDArray[np.float64]:
    """(count,): which part of all pixels each class has; what is no class counts in the whole."""
    found = np.bincount(mask[mask < count].astype(np.int64).ravel(), minlength=count)
    result: NDArray[np.float64] = found / max(mask.size, 1)
    return result


def legend(
    labels: Labels, used: Sequence[int], width: int, size: int = 14, share: Sequence[float] | None = None
) -> Picture:
    """A strip `width` wide of swatches and names, white; with `share` (of every class) the percentage behind each."""
    font = ImageFont.load_default(size)
    line, swatch, gap = round(1.6 * size), round(1.15 * size), round(0.45 * size)
    places, x, y = [], 0, 0
    for index in used:
        words = shown_name(labels, index) + ("" if share is None else f" {percent(share[index])}")
        need = swatch + gap + int(font.getlength(words)) + 3 * gap
        if x and x + need > width:
            x, y = 0, y + line
        places.append((index, words, x, y))
        x += need
    sheet = Image.new("RGB", (max(1, width), y + line), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, words, x, y in places:
        top = y + (line - swatch) // 2
        draw.rectangle((x, top, x + swatch, top + swatch), labels.palette[index], INK)
        draw.text((x + swatch + gap, y + line // 2), words, INK, font, anchor="lm")
    return np.asarray(sheet)


def percent(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"
