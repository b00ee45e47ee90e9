"""Regions, depths and places of names against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from atrous.data.labels import Labels
from atrous.lettering import INK, PAPER, depth, legend, percent, place, regions, shares, write_names

RNG = np.random.default_rng(0)


def blobs(height: int, width: int, cell: int = 3) -> NDArray[np.uint8]:
    small = RNG.integers(0, 3, (height // cell + 1, width // cell + 1), dtype=np.uint8)
    return small.repeat(cell, 0).repeat(cell, 1)[:height, :width]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (23, 1), (20, 31), (64, 64)])
@pytest.mark.parametrize("cell", [1, 5])
def test_regions_are_scipys_components(size: tuple[int, int], cell: int) -> None:
    mask = blobs(*size, cell)
    found = regions(mask)
    for label in np.unique(mask):
        expected, count = ndimage.label(mask == label)
        pairs = {*zip(found[mask == label].tolist(), expected[mask == label].tolist(), strict=True)}
        assert len(pairs) == count == len(set(found[mask == label].tolist()))
    for number in np.unique(found):
        assert found.flat[number] == number and (found == number).ravel().argmax() == number


def test_a_spiral_is_one_region() -> None:
    """The path is as long as it can be on such a grid."""
    spiral = np.zeros((33, 33), np.uint8)
    y, x, dy, dx = 0, -1, 0, 1
    for length in (33, 32, 32, 30, 30, 28, 28, 26, 26, 24, 24, 22, 22, 20, 20, 18, 18, 16, 16, 14, 14):
        for _ in range(length):
            y, x = y + dy, x + dx
            spiral[y, x] = 1
        dy, dx = dx, -dy
    assert len(np.unique(regions(spiral)[spiral == 1])) == 1


def test_depth_is_the_chessboard_distance_to_another_region() -> None:
    region = regions(blobs(30, 47, 7))
    padded = np.pad(region, 1, constant_values=-1)
    expected = np.zeros(region.shape, int)
    for number in np.unique(region):
        inside = ndimage.distance_transform_cdt(padded == number, "chessboard")[1:-1, 1:-1]
        expected[region == number] = inside[region == number]
    np.testing.assert_array_equal(depth(region), expected)


@pytest.mark.parametrize("box", [(1, 1), (3, 8), (4, 5), (9, 2)])
def test_place_is_the_deepest_of_all_places(box: tuple[int, int]) -> None:
    mask = blobs(24, 33, 8)
    region = regions(mask)
    inner = depth(region)
    height, width = box
    for number in np.unique(region):
        inside = region == number
        best: int | None = None
        for top in range(24 - height + 1):
            for left in range(33 - width + 1):
                if inside[top : top + height, left : left + width].all():
                    deep = int(inner[top + height // 2, left + width // 2])
                    best = deep if best is None else max(best, deep)
        found = place(inside, inner, box)
        assert (found is None) == (best is None)
        if found is not None:
            top, left = int(found[0] - (height - 1) / 2), int(found[1] - (width - 1) / 2)
            assert inside[top : top + height, left : left + width].all()
            assert inner[top + height // 2, left + width // 2] == best


def test_names_stand_inside_their_regions() -> None:
    """Every pixel that was written on is of a class that is named, and its colour and rim are there."""
    labels = Labels.named(["background", "left", "a very long name that fits nowhere", "right"])
    mask = np.zeros((200, 300), np.uint8)
    mask[20:180, 10:120] = 1
    mask[20:180, 130:160] = 2
    mask[20:180, 170:290] = 3
    grey = np.full((200, 300, 3), 128, np.uint8)
    written = (write_names(grey, mask, labels, leave_out=[0]) != grey).any(-1)
    assert set(np.unique(mask[written])) == {1, 3}
    both = write_names(grey, mask, labels, leave_out=[0])[written]
    assert (both == PAPER).all(-1).any() and (both == INK).all(-1).any()
    np.testing.assert_array_equal(write_names(grey, mask, labels, leave_out=[0, 1, 2, 3]), grey)


def test_shares_count_what_is_no_class_in_the_whole() -> None:
    mask = np.array([[0, 0, 1, 255], [0, 2, 1, 255]], np.uint8)
    np.testing.assert_allclose(shares(mask, 4), [3 / 8, 2 / 8, 1 / 8, 0])
    assert [percent(v) for v in (0.0, 0.004, 0.0149, 0.5, 1.0)] == ["0%", "<1%", "1%", "50%", "100%"]


def test_a_legend_has_every_colour_and_no_line_too_long() -> None:
    labels = Labels(tuple(f"class number {i}" for i in range(9)), tuple((i * 20, 7, 99) for i in range(9)))
    strip = legend(labels, range(9), 400, share=[0.1] * 9)
    assert strip.shape[1] == 400
    for colour in labels.palette:
        _, xs = (strip == colour).all(-1).nonzero()
        assert len(xs) > 100 and xs.max() < 300, "a swatch, with room for its name"
    assert (strip[:, -4:] == PAPER).all()
