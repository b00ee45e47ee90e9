"""Outlines and run lengths, as annotation tools save them, made into pixels.

Coordinates are x, y from the upper left corner of the upper left pixel, whose centre is at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FAR = 1e7  # coordinates are cut here, far outside any picture
LARGEST = 1 << 29  # pixels of one mask
CORNERS = 256  # of the polygon that stands for an ellipse: within 1e-4 of its radius


@dataclass(frozen=True)
class Region:
    """A class's area: the inside of the outlines, each (N, 2) x and y, and a patch (h, w) bool at `corner` x, y."""

    label: str
    outlines: Sequence[np.ndarray] = field(default_factory=list)
    patch: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    below: bool = False  # below all other regions

    def cover(self, height: int, width: int) -> np.ndarray:
        """(height, width) bool."""
        covered = np.zeros((height, width), bool)
        for outline in self.outlines:
            covered |= fill_polygon(outline, height, width)
        if self.patch is not None:
            x, y = self.corner
            part = self.patch[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
            top, left = max(0, y), max(0, x)
            covered[top : top + part.shape[0], left : left + part.shape[1]] |= part
        return covered


def read_points(values: Any) -> np.ndarray:
    """(N, 2) float from pairs or from x0, y0, x1, y1, ...; ValueError where these are no finite coordinates."""
    try:
        points = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("coordinates that are no numbers") from None
    if points.size % 2 or points.ndim > 2 or (points.ndim == 2 and points.shape[1] != 2):
        raise ValueError("coordinates that are no pairs of x and y")
    if not np.isfinite(points).all():
        raise ValueError("coordinates that are not finite")
    return points.reshape(-1, 2).clip(-FAR, FAR)


def read_polygon(values: Any) -> np.ndarray:
    """`read_points`, at least three."""
    points = read_points(values)
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    return points


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels whose centre is inside, by the even-odd rule.

    Each edge crosses the rows of centres between its ends; a pixel is inside if an odd number of crossings
    lie at or left of its centre. An edge gives the same crossings in both directions, so that neighbours which
    share it share no pixel.
    """
    filled = np.zeros((height, width), bool)
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    up = y1 < y0
    x0, y0, x1, y1 = np.where(up, (x1, y1, x0, y0), (x0, y0, x1, y1))
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    rows_of = last - first
    edge = np.repeat(np.arange(len(points)), rows_of)
    if not len(edge):
        return filled
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_of) - rows_of - first, rows_of)
    along = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    column = np.ceil(x0[edge] + along * (x1 - x0)[edge] - 0.5).clip(0, width).astype(np.int64)
    top, left, rows, columns = row.min(), column.min(), np.ptp(row) + 1, np.ptp(column) + 1
    crossings = np.bincount((row - top) * columns + column - left, minlength=rows * columns)
    inside = crossings.reshape(rows, columns).cumsum(axis=1) & 1
    filled[top : top + rows, left : left + columns - 1] = inside[:, :-1]
    return filled


def box(x0: float, y0: float, x1: float, y1: float, degrees: float = 0) -> np.ndarray:
    """A rectangle as a polygon, turned clockwise about its centre."""
    return turn(read_points([x0, y0, x1, y0, x1, y1, x0, y1]), degrees)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> np.ndarray:
    """An ellipse as a polygon, turned clockwise about its centre (x, y)."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    outline = np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)
    return turn(read_points(outline), degrees, (x, y))


def turn(points: np.ndarray, degrees: float, about: tuple[float, float] | None = None) -> np.ndarray:
    """The points turned clockwise as one sees it (y points down), about their mean or a given point."""
    if degrees == 0:
        return points
    centre = points.mean(axis=0) if about is None else np.array(about)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre


def decode_runs(counts: Sequence[int], height: int, width: int, order: str) -> np.ndarray:
    """(height, width) bool from the lengths of runs of 0, 1, 0, ...; order: "rows" or "columns" (COCO's)."""
    if not 0 < height * width <= LARGEST:
        raise ValueError(f"run lengths for {width}x{height} pixels")
    try:
        lengths = np.asarray(counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("run lengths that are no numbers") from None
    if lengths.ndim != 1 or (lengths < 0).any() or sum(lengths.tolist()) != height * width:
        raise ValueError(f"run lengths that do not add up to {width}x{height} pixels")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape((height, width), order="F" if order == "columns" else "C")


def unpack_runs(text: str) -> list[int]:
    """COCO's compressed run lengths: groups of five bits, least first; from the fourth on differences two back."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"run lengths with a character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut off")
    return counts
