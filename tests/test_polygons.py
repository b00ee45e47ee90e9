"""Outlines of label maps, against the pixels that they are outlines of."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import approximate_polygon

from atrous.data.scenes import draw_scene
from atrous.data.shapes import fill_polygon
from atrous.polygons import find_polygons, signed_area, simplify_arc


@pytest.mark.parametrize(
    ("size", "classes"), [((1, 1), 1), ((1, 9), 2), ((7, 9), 3), ((25, 20), 2), ((30, 41), 4)]
)
def test_unsimplified_polygons_are_the_regions(size: tuple[int, int], classes: int) -> None:
    """Noise has every crossing, nested hole and touching corner. scipy labels the 4-connected regions."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels, confidence = rng.integers(0, classes, size), rng.random(size)
        found = find_polygons(labels, confidence, simplify=0)
        regions = np.zeros(size, int)
        for number, polygon in enumerate(found, start=1):
            cover = polygon.cover(*size)
            assert not regions[cover].any()  # no pixel is in two
            regions[cover] = number
            assert (labels[cover] == polygon.label).all()
            assert polygon.area == cover.sum()
            assert polygon.score == pytest.approx(confidence[cover].mean())
            y, x = np.nonzero(cover)
            assert polygon.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        assert regions.all()  # every pixel is in one
        assert len(found) == sum(ndimage.label(labels == c)[1] for c in range(classes))


def test_a_hole_with_an_island() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[1:8, 1:8], labels[2:7, 2:7], labels[4, 4] = 1, 0, 1
    outer, inner = (p for p in find_polygons(labels, simplify=0) if p.label == 1)
    assert outer.outline.tolist() == [[1, 1], [8, 1], [8, 8], [1, 8]]
    assert [sorted(hole.tolist()) for hole in outer.holes] == [[[2, 2], [2, 7], [7, 2], [7, 7]]]
    assert (outer.area, inner.area) == (24, 1)
    assert signed_area(outer.outline) > 0 > signed_area(outer.holes[0])


def test_small_regions_are_left_out_and_small_holes_filled() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:8, 5:8], labels[12:18, 12:18] = 1, 2
    background, large = find_polygons(labels, simplify=0, min_area=10)
    assert (background.label, large.label, large.area) == (0, 2, 36)
    assert len(background.holes) == 1
    assert background.area == 400 - 36


def test_holes_joined_to_the_outline_cover_the_same_pixels() -> None:
    labels = (np.random.default_rng(1).random((30, 30)) < 0.7).astype(int)
    for tolerance in (0, 1):
        with_holes = [p for p in find_polygons(labels, simplify=tolerance) if p.holes]
        assert max(len(p.holes) for p in with_holes) > 5
        for polygon in with_holes:
            np.testing.assert_array_equal(fill_polygon(polygon.joined(), 30, 30), polygon.cover(30, 30))


def test_neighbours_keep_one_boundary() -> None:
    """Simplified, the polygons still tile the picture; those that skimage simplifies one by one do not."""
    labels = draw_scene(0, size=(120, 160))[1]
    exact, found = find_polygons(labels, simplify=0), find_polygons(labels, simplify=0.75)
    times = sum(polygon.cover(*labels.shape).astype(int) for polygon in found)
    alone = np.zeros(labels.shape, int)
    for polygon in exact:
        for ring in (polygon.outline, *polygon.holes):
            sign = np.sign(signed_area(ring)).astype(int)
            alone += sign * fill_polygon(
                approximate_polygon(np.vstack([ring, ring[:1]]), 0.75), *labels.shape
            )
    assert (times != 1).mean() < 0.1 * (alone != 1).mean()
    assert sum(len(p.outline) for p in found) < 0.5 * sum(len(p.outline) for p in exact)
    for before, after in zip(exact, found, strict=True):
        if before.area > 400:
            a, b = before.cover(*labels.shape), after.cover(*labels.shape)
            assert (a & b).sum() / (a | b).sum() > 0.98


def test_no_point_is_further_than_the_tolerance_and_both_ways_agree() -> None:
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.integers(-3, 4, (200, 2)), axis=0)
    for tolerance in (0.5, 2.0, 5.0):
        simple = simplify_arc(points, tolerance)
        np.testing.assert_array_equal(simplify_arc(points[::-1], tolerance), simple[::-1])
        kept = [int(np.flatnonzero((points == p).all(axis=1))[0]) for p in simple]
        assert kept[0] == 0
        fine = np.linspace(0, 1, 400)[:, None]
        chords = np.concatenate([a + fine * (b - a) for a, b in pairwise(simple)])
        distance = np.sqrt(((points[:, None] - chords[None]) ** 2).sum(-1)).min(axis=1)
        assert distance.max() <= tolerance + 0.05
        assert len(simple) < len(points)


def test_a_thin_region_is_not_simplified_away() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[np.arange(3, 17), np.arange(3, 17)] = 1
    labels[np.arange(3, 16), np.arange(4, 17)] = 1  # a diagonal, two pixels wide
    (line,) = (p for p in find_polygons(labels, simplify=3) if p.label == 1)
    assert line.area > 0
