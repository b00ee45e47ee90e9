"""Outlines and run lengths against pixels counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.data.shapes import Region, box, decode_runs, ellipse, fill_polygon, read_polygon, unpack_runs


def inside(points: np.ndarray, x: float, y: float) -> bool:
    """The even-odd rule for one point, edge by edge."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x > x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            odd = not odd
    return odd


@pytest.mark.parametrize("seed", range(8))
def test_polygons_against_every_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-6, 26, (int(rng.integers(3, 12)), 2))  # crossing itself and the border
    filled = fill_polygon(points, 17, 23)
    expected = [[inside(points, x + 0.5, y + 0.5) for x in range(23)] for y in range(17)]
    assert (filled == np.array(expected)).all() and (seed != 0 or 0 < filled.sum() < 17 * 23)


def test_whole_pixels_are_exact() -> None:
    square = fill_polygon(read_polygon([2, 1, 5, 1, 5, 4, 2, 4]), 6, 7)
    assert square.sum() == 9 and square[1:4, 2:5].all()
    assert fill_polygon(box(2, 1, 5, 4, 90), 6, 7).sum() == 9  # a quarter turn of a square
    long = fill_polygon(box(1, 3, 9, 5, 90), 9, 11)  # 8x2 about (5, 4) becomes 2x8
    assert long[0:8, 4:6].all() and long.sum() == 16
    assert not fill_polygon(read_polygon([-9, -9, -1, -9, -1, -1]), 6, 7).any()
    assert fill_polygon(
        read_polygon([-1e300, -1e300, 1e300, -1e300, 1e300, 1e300, -1e300, 1e300]), 6, 7
    ).all()


def test_a_turn_is_clockwise() -> None:
    # a bar to the right of its centre's left end, turned by 45 degrees, falls to the lower right
    bar = fill_polygon(box(0, 9, 20, 11, 45), 20, 20)
    assert bar[4, 4] and bar[15, 15] and not bar[4, 15] and not bar[15, 4]


def test_ellipses_against_every_pixel() -> None:
    ys, xs = np.mgrid[:30, :40] + 0.5
    expected = ((xs - 20.3) / 15.2) ** 2 + ((ys - 14.1) / 9.7) ** 2 <= 1
    found = fill_polygon(ellipse(20.3, 14.1, 15.2, 9.7), 30, 40)
    assert (found != expected).sum() <= 1


def pack(counts: list[int]) -> str:
    """COCO's compression, by its description: the other way round of what is tested."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
            if not more:
                break
    return text


@pytest.mark.parametrize("seed", range(5))
def test_runs_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((5, 4)) < 0.5, np.ones((7, 9))).astype(bool)
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat, [not flat[-1]]]).astype(int)))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    assert (decode_runs(counts, 35, 36, "columns") == mask).all()
    assert unpack_runs(pack(counts)) == counts
    assert (decode_runs(counts, 36, 35, "rows") == mask.T).all()


def test_known_run_lengths() -> None:
    # M = [0 0 1 1 1 0 1] has the counts [2 3 1 1] (the head of pycocotools' mask.py)
    assert decode_runs([2, 3, 1, 1], 1, 7, "rows").astype(int).tolist() == [[0, 0, 1, 1, 1, 0, 1]]
    assert unpack_runs("2311") == [2, 3, 1, 4]  # the fourth is a difference to the second
    for counts, message in (
        ([1, 2], "add up"),
        ([-1, 8], "add up"),
        (["x"], "numbers"),
        ([2**70], "numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_runs(counts, 1, 7, "rows")  # type: ignore[arg-type]
    for text in ("ab\x7f", "`"):
        with pytest.raises(ValueError, match="run lengths"):
            unpack_runs(text)


def test_patches_are_cut_at_the_border() -> None:
    patch = np.ones((4, 6), bool)
    for x, y in ((-2, -1), (3, 2), (-9, 0), (0, 9), (1, 1)):
        expected = [[0 <= r - y < 4 and 0 <= c - x < 6 for c in range(7)] for r in range(5)]
        assert (Region("a", patch=patch, corner=(x, y)).cover(5, 7) == np.array(expected)).all()
