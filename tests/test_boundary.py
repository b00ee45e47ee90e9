"""Bands around boundaries, trimap mIoU and Boundary IoU against brute force and scipy's morphology."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from atrous.boundary import BoundaryScores, bands
from atrous.errors import InputError

VOID = 255


def drawn(height: int, width: int, classes: int, seed: int, cell: int = 6) -> NDArray[np.uint8]:
    """Blobs of classes with specks."""
    rng = np.random.default_rng(seed)
    blobs = rng.integers(0, classes, (height // cell + 1, width // cell + 1), dtype=np.uint8)
    labels = blobs.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    specks = rng.random((height, width)) < 0.02
    return np.where(specks, rng.integers(0, classes, (height, width)), labels).astype(np.uint8)


def band_by_hand(labels: NDArray[Any], width: int, rim: bool) -> NDArray[np.bool_]:
    """Every pixel against every other one."""
    rows, columns = np.indices(labels.shape).reshape(2, -1)
    flat = labels.ravel()
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) <= width
    band = (near & (flat[:, None] != flat)).any(1)
    if rim:
        height, across = labels.shape
        band |= np.minimum.reduce([rows, columns, height - 1 - rows, across - 1 - columns]) < width
    return band.reshape(labels.shape)


@pytest.mark.parametrize("rim", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 1), (23, 31), (40, 9)])
def test_bands_are_those_of_every_pair_of_pixels(size: tuple[int, int], rim: bool) -> None:
    labels = drawn(*size, classes=3, seed=1, cell=9)
    widths = [1, 2, 5, 10, 40]
    for width, band in zip(widths, bands(labels, widths, rim), strict=True):
        np.testing.assert_array_equal(band, band_by_hand(labels, width, rim))


def iou(truth: NDArray[Any], prediction: NDArray[Any], where: NDArray[np.bool_], c: int) -> float | None:
    both = ((truth == c) & (prediction == c) & where).sum()
    either = (((truth == c) | (prediction == c)) & where).sum()
    return both / either if either else None


def mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def test_trimap_miou_over_two_pictures() -> None:
    widths = (1, 3, 8)
    scores = BoundaryScores(4, VOID, widths)
    truths = [drawn(30, 41, 4, seed) for seed in (1, 2)]
    truths[0][5:9, 3:20] = VOID
    predictions = [np.where(drawn(30, 41, 2, 9) > 0, np.roll(truth, 1, 1), truth) % 5 % 4 for truth in truths]
    for truth, prediction in zip(truths, predictions, strict=True):
        scores.update(truth, prediction)
    found = scores.trimap_miou()
    assert list(found) == list(widths)
    for width in widths:
        where = np.concatenate([band_by_hand(truth, width, rim=False) & (truth != VOID) for truth in truths])
        truth, prediction = np.concatenate(truths), np.concatenate(predictions)
        expected = mean([iou(truth, prediction, where, c) for c in range(4)])
        assert found[width] == pytest.approx(expected)
    assert len({round(value, 4) for value in found.values()}) == 3


def test_a_wide_trimap_is_the_whole_picture() -> None:
    truth, prediction = drawn(20, 30, 3, 3), drawn(20, 30, 3, 4)
    scores = BoundaryScores(3, VOID, (50,))
    scores.update(truth, prediction)
    everywhere = np.full(truth.shape, True)
    assert scores.trimap_miou()[50] == pytest.approx(
        mean([iou(truth, prediction, everywhere, c) for c in range(3)])
    )


def boundary_region(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Cheng et al.: the mask without its erosion; outside of the picture is no mask."""
    square = np.ones((3, 3), bool)
    return mask & ~ndimage.binary_erosion(mask, square, iterations=distance, border_value=0)


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.08])
def test_boundary_iou_is_that_of_eroded_masks(share: float, void: bool) -> None:
    truth, prediction = drawn(60, 80, 5, 5, cell=15), drawn(60, 80, 5, 5, cell=15)
    prediction = np.roll(prediction, 2, 0)
    if void:
        truth[20:26] = VOID
        truth[:, 33:40] = VOID
    scores = BoundaryScores(5, VOID, share=share)
    scores.update(truth, prediction)
    distance = round(share * 100)  # the diagonal of 60x80
    prediction = np.where(truth == VOID, VOID, prediction)
    for c, found in enumerate(scores.boundary_iou()):
        ours, theirs = (boundary_region(labels == c, distance) for labels in (truth, prediction))
        assert found == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())


@pytest.mark.parametrize("width", [1, 4])
def test_right_but_for_void_is_right(width: int) -> None:
    truth = drawn(33, 47, 3, 6)
    truth[10:14] = VOID
    scores = BoundaryScores(3, VOID, (width,), 0.02)
    scores.update(truth, np.where(truth == VOID, 1, truth))
    assert scores.trimap_miou() == {width: 1.0}
    assert scores.boundary_iou() == (1.0, 1.0, 1.0)


def test_a_straight_edge_by_hand() -> None:
    """Halves of 10x20, the edge predicted one pixel too far right: the band of w pixels has 2w columns, one wrong."""
    truth = np.zeros((10, 20), np.uint8)
    truth[:, 10:] = 1
    prediction = np.zeros_like(truth)
    prediction[:, 11:] = 1
    scores = BoundaryScores(2, VOID, (1, 2, 5))
    scores.update(truth, prediction)
    expected = {w: (w / (w + 1) + (w - 1) / w) / 2 for w in (1, 2, 5)}
    assert scores.trimap_miou() == pytest.approx(expected)


def test_no_boundary_and_nothing_asked_for() -> None:
    scores = BoundaryScores(3, VOID, (2,))
    scores.update(np.zeros((5, 5), np.uint8), np.ones((5, 5), np.uint8))
    assert scores.trimap_miou() == {2: 0.0}
    assert scores.boundary_iou() == ()
    assert BoundaryScores(3).trimap_miou() == {}


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match=r"trimap widths \[0, 3\]"):
        BoundaryScores(3, widths=(0, 3))
    with pytest.raises(InputError, match="boundary share 2"):
        BoundaryScores(3, share=2)


def test_labels_beyond_a_byte() -> None:
    truth = drawn(20, 30, 3, 7).astype(np.int32) * 300
    scores = BoundaryScores(601, 65535, (3,), 0.05)
    scores.update(truth, truth)
    assert scores.trimap_miou() == {3: 1.0}
    assert [c for c, value in enumerate(scores.boundary_iou()) if value is not None] == [0, 300, 600]
