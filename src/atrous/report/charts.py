"""Charts as text: inline SVG that takes its colours from the page, so that dark and light both work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

Series = tuple[str, Sequence[tuple[float, float]]]  # its name, and its points

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 38
NUMBERED = 24  # classes: a larger matrix has no room for figures
CELL = 34  # of the matrix


def lines(series: Sequence[Series], across: str, logarithmic: bool = False) -> str:
    """A line chart. `across`: what x is; logarithmic: x on such a scale. Empty text where there are no points."""
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    place_x = (lambda x: math.log(x)) if logarithmic else (lambda x: x)
    xs, ys = [place_x(x) for x, _ in points], [y for _, y in points]
    x0, x1 = min(xs), max(xs)
    marks = ticks(min(ys), max(ys))
    y0, y1 = marks[0], marks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across_share = (place_x(x) - x0) / (x1 - x0) if x1 > x0 else 0.5
        return (
            LEFT + across_share * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    drawn = []
    for mark in marks:
        _, y = at(points[0][0], mark)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    below = sorted({x for x, _ in points}) if logarithmic else ticks(x0, x1)
    for mark in below:
        if logarithmic or x0 <= mark <= x1:
            x, _ = at(mark, y0)
            drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{mark:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
    for number, (name, line) in enumerate(series):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        drawn.append(f'<polyline class="line s{number}" points="{path}"/>')
        if len(line) <= 40:
            for point in line:
                x, y = at(*point)
                told = escape(f"{name}: {point[1]:.4f} at {point[0]:g}")
                drawn.append(
                    f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{told}</title></circle>'
                )
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers at equal distances, the first at or below `low` and the last at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / about))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]


def bars(names: Sequence[str], columns: Sequence[Sequence[float | None]]) -> str:
    """A row for each name with a bar 0..1 for each column; None is "absent"."""
    rows = []
    for name, *values in zip(names, *columns, strict=True):
        drawn = "".join(
            f'<span class="track"><span class="bar s{number}" style="width:{100 * (value or 0):.1f}%"></span></span>'
            f'<span class="figure">{"absent" if value is None else f"{100 * value:.1f}"}</span>'
            for number, value in enumerate(values)
        )
        rows.append(f'<div class="row"><span class="name">{escape(name)}</span><div>{drawn}</div></div>')
    return f'<div class="bars">{"".join(rows)}</div>'


def row_shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row over its sum: which part of a true class is predicted as what; a class that is absent has zeros."""
    shares: NDArray[np.float64] = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    return shares


def matrix(confusion: NDArray[np.int64], names: Sequence[str]) -> str:
    """The confusion matrix by rows (true classes), as squares whose strength is the share of the row."""
    shares, count = row_shares(confusion), len(names)
    cell = CELL if count <= NUMBERED else 14
    side = 9 * max(map(len, names), default=0) * (1.0 if cell == CELL else 0.75) + 14
    drawn = []
    for i in range(count):
        place = side + (i + 0.65) * cell
        drawn.append(f'<text x="{side - 6}" y="{place:.1f}" text-anchor="end">{escape(names[i])}</text>')
        drawn.append(
            f'<text transform="translate({place:.1f} {side - 6}) rotate(-60)">{escape(names[i])}</text>'
        )
        for j in map(int, np.flatnonzero(shares[i] >= 0.0005)):
            x, y = side + j * cell, side + i * cell
            kind = "hit" if i == j else "miss"
            told = escape(f"{names[i]} predicted as {names[j]}: {shares[i, j]:.1%}")
            drawn.append(
                f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{cell - 2}" height="{cell - 2}" rx="3" '
                f'fill-opacity="{max(0.04, float(shares[i, j]) ** 0.6):.2f}"><title>{told}</title></rect>'
            )
            if cell == CELL and shares[i, j] >= 0.005:
                strong = " strong" if shares[i, j] > 0.45 else ""
                drawn.append(
                    f'<text class="in{strong}" x="{x + cell / 2 - 1:.1f}" y="{y + cell * 0.6:.1f}" '
                    f'text-anchor="middle">{100 * shares[i, j]:.0f}</text>'
                )
    size = side + count * cell + 40
    return (
        f'<div class="wide"><svg class="matrix" viewBox="0 0 {size:.0f} {side + count * cell:.0f}" '
        f'style="min-width:{min(size, 900):.0f}px;max-width:{size:.0f}px" role="img">{"".join(drawn)}</svg></div>'
    )


def largest_confusions(
    confusion: NDArray[np.int64], names: Sequence[str], most: int = 8, least_share: float = 0.001
) -> list[str]:
    """In words, the largest shares of a true class that are taken for another.

    Classes with less than `least_share` of all pixels are left out: a few pixels say nothing.
    """
    shares = row_shares(confusion)
    shares[confusion.sum(1) < least_share * confusion.sum()] = 0
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(names)) for at in order]
    return [f"{shares[i, j]:.1%} of {names[i]} is taken for {names[j]}" for i, j in pairs if shares[i, j] > 0]
