"""Label maps as polygons along the pixel edges, and simplified so that neighbours keep one boundary.

    every side of a pixel whose neighbour has another label is an edge, with the region on its right
    -> edges joined to rings, 4-connected: outer rings run clockwise as one sees them, holes the other way
    -> rings cut where three labels meet into arcs, each simplified by Douglas & Peucker (1973)

An arc lies between two regions and is simplified the same for both: no gaps, no overlaps. Coordinates are x, y from the
upper left corner of the upper left pixel, as in `data.shapes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.shapes import fill_polygon

Points = NDArray[np.float64]  # (N, 2) x, y

NO_LABEL = -1  # around the picture
RIGHT, DOWN, LEFT, UP = range(4)
STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # x, y of walking on in each direction
LEFT_HAND = STEP[[UP, RIGHT, DOWN, LEFT]]
# corner of the pixel where its edge in each direction begins
START = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


@dataclass(frozen=True)
class Polygon:
    """A 4-connected region of one class. outline, holes: (N, 2) x, y, not closed. score: mean over its pixels.

    area: of what is drawn, in pixels: outline less holes.
    """

    label: int
    outline: Points
    holes: list[Points] = field(default_factory=list)
    score: float | None = None

    @property
    def area(self) -> float:
        return abs(signed_area(self.outline)) - sum(abs(signed_area(hole)) for hole in self.holes)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height."""
        (left, top), (right, bottom) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(left), float(top), float(right - left), float(bottom - top)

    def cover(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width) bool: the pixels whose centre is inside."""
        covered = np.zeros((height, width), bool)
        for ring in (self.outline, *self.holes):
            covered ^= fill_polygon(ring, height, width)
        return covered

    def joined(self) -> Points:
        """One outline (N, 2) for tools without holes: each hole is reached and left by the same straight cut.

        By the even-odd rule it covers what the polygon does.
        """
        joined = self.outline
        for hole in sorted(self.holes, key=lambda hole: hole[:, 0].min()):
            turned = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
            here = int(((joined - turned[0]) ** 2).sum(axis=1).argmin())
            joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
        return joined


def find_polygons(
    labels: NDArray[Any],
    confidence: NDArray[np.floating[Any]] | None = None,
    simplify: float = 0.75,
    min_area: int = 0,
) -> list[Polygon]:
    """The regions of a label map (H, W), from the upper left on.

    confidence: (H, W), averaged over each region for its `score`. simplify: how far, in pixels, a boundary may move;
    0 keeps every pixel. min_area: smaller regions, in pixels, are left out, and smaller holes filled.
    """
    if 0 in labels.shape:
        return []
    around = np.pad(labels.astype(np.int64), 1, constant_values=NO_LABEL)
    rings = trace(around, confidence)
    meets = junctions(around)
    regions: dict[int, list[Ring]] = defaultdict(list)  # by the number of the outer ring
    for number, (ring, parent) in enumerate(zip(rings, _parents(rings, labels), strict=True)):
        regions[parent].insert(0 if number == parent else len(regions[parent]), ring)
    found = []
    for _, region in sorted(regions.items()):
        pixels = sum(ring.area for ring in region)
        if pixels < min_area:
            continue
        outline, *holes = (
            _simplified(ring.corners, meets, simplify) for ring in region if abs(ring.area) >= min_area
        )
        score = None if confidence is None else sum(ring.total for ring in region) / pixels
        found.append(Polygon(region[0].label, outline, holes, score))
    return found


@dataclass(frozen=True)
class Ring:
    """One boundary. corners: (N, 2) int x, y, one for each pixel edge. area: in pixels, negative for a hole.

    total: sum of the confidence on its right, less what is on its left. pixel: its leftmost pixel, x, y.
    """

    label: int
    corners: NDArray[np.int64]
    area: int
    total: float
    pixel: tuple[int, int]


def trace(around: NDArray[np.int64], confidence: NDArray[np.floating[Any]] | None = None) -> list[Ring]:
    """All boundaries of a label map (H + 2, W + 2) whose margin has `NO_LABEL`."""
    height, width = around.shape[0] - 2, around.shape[1] - 2
    own = around[1:-1, 1:-1]

    def neighbour(offset: NDArray[np.int64]) -> NDArray[np.int64]:
        x, y = offset
        return around[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    edges = np.stack([neighbour(LEFT_HAND[d]) != own for d in range(4)])
    number = np.full(edges.shape, -1, np.int64)
    number[edges] = np.arange(edges.sum())
    follower = np.empty(int(edges.sum()), np.int64)
    for d in range(4):
        y, x = np.nonzero(edges[d])
        front, side = STEP[d], STEP[d] + LEFT_HAND[d]
        ahead = neighbour(front)[y, x] == own[y, x]
        across = ahead & (neighbour(side)[y, x] == own[y, x])
        turn = np.select([across, ahead], [(d - 1) % 4, d], (d + 1) % 4)
        to_x = x + np.select([across, ahead], [side[0], front[0]], 0)
        to_y = y + np.select([across, ahead], [side[1], front[1]], 0)
        follower[number[d, y, x]] = number[turn, to_y, to_x]

    direction, y, x = np.nonzero(edges)
    sums = np.zeros((height, width + 1))
    if confidence is not None:
        np.cumsum(confidence, axis=1, out=sums[:, 1:])
    corner = np.stack([x, y], axis=1) + START[direction]
    # right sides of runs, and left sides
    upright = np.select([direction == DOWN, direction == UP], [1, -1], 0)
    return [
        Ring(
            int(own[y[ring[0]], x[ring[0]]]),
            corner[ring],
            int((upright[ring] * corner[ring, 0]).sum()),
            float((upright[ring] * sums[y[ring], corner[ring, 0]]).sum()),
            (int(x[first := ring[x[ring].argmin()]]), int(y[first])),
        )
        for ring in _cycles(follower)
    ]


def _cycles(follower: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The cycles of a permutation."""
    after = follower.tolist()
    for start in range(len(after)):
        cycle = []
        here = start
        while (there := after[here]) >= 0:
            cycle.append(here)
            after[here] = -1
            here = there
        if cycle:
            yield np.array(cycle)


def _parents(rings: list[Ring], labels: NDArray[Any]) -> list[int]:
    """For each hole the number of the outer ring of its region; its own number for an outer ring.

    To the left of a hole's leftmost pixel the region goes on to another of its rings, which begins further left.
    """
    changed = np.ones(labels.shape, bool)
    changed[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run_start = np.maximum.accumulate(np.where(changed, np.arange(labels.shape[1]), 0), axis=1)
    ring_of = np.full(labels.shape, -1, np.int64)  # the ring of a pixel's left side
    for number, ring in enumerate(rings):
        goes_up = np.roll(ring.corners, -1, axis=0)[:, 1] < ring.corners[:, 1]
        x, y = ring.corners[goes_up].T
        ring_of[y - 1, x] = number
    parents = list(range(len(rings)))
    for number in sorted(range(len(rings)), key=lambda number: rings[number].pixel[0]):
        if rings[number].area < 0:
            x, y = rings[number].pixel
            parents[number] = parents[ring_of[y, run_start[y, x]]]
    return parents


def junctions(around: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(H + 1, W + 1), at y, x: whether more than two edges meet at this corner."""
    a, b, c, d = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    return (a != b).astype(int) + (c != d) + (a != c) + (b != d) > 2


def _simplified(corners: NDArray[np.int64], meets: NDArray[np.bool_], tolerance: float) -> Points:
    if tolerance <= 0:
        return _without_straight(corners)
    cuts = np.flatnonzero(meets[corners[:, 1], corners[:, 0]])
    if not len(cuts):  # a ring that two regions share: both begin at its first corner in reading order
        cuts = np.array([np.lexsort((corners[:, 0], corners[:, 1]))[0]])
    turned = np.roll(corners, -cuts[0], axis=0)
    ends = [*(cuts - cuts[0]).tolist(), len(turned)]
    closed = np.concatenate([turned, turned[:1]])
    arcs = [simplify_arc(closed[a : b + 1], tolerance)[:-1] for a, b in pairwise(ends)]
    simple = _without_straight(np.concatenate(arcs))
    return simple if len(simple) > 2 and signed_area(simple) else _without_straight(corners)


def simplify_arc(points: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """Douglas & Peucker: the fewest of their cuts, so that no point is further than `tolerance` from its chord.

    The answer for the points backwards is the same, backwards.
    """
    backwards = tuple(points[-1]) + tuple(points[-2]) < tuple(points[0]) + tuple(points[1])
    points = points[::-1] if backwards else points
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        offset = points[first + 1 : last] - points[first]
        chord = points[last] - points[first]
        along = float(chord @ chord)
        share = np.clip(offset @ chord / along, 0, 1) if along else np.zeros(len(offset))
        away = ((offset - share[:, None] * chord) ** 2).sum(axis=1)
        if away.max() > tolerance**2:
            middle = first + 1 + int(away.argmax())
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    simple = points[keep]
    return simple[::-1] if backwards else simple


def _without_straight(corners: NDArray[np.int64]) -> Points:
    """Without the points of a ring where it goes straight on."""
    before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    straight = (before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]) & ((before * after).sum(1) > 0)
    return corners[~straight].astype(np.float64)


def signed_area(ring: NDArray[Any]) -> float:
    """Shoelace; positive for clockwise as one sees it (y points down)."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
