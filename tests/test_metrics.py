from __future__ import annotations

import numpy as np
import pytest

from atrous.metrics import ConfusionMatrix


def test_by_hand() -> None:
    confusion = ConfusionMatrix(4)
    confusion.update(np.array([[0, 0, 1], [1, 2, 255]]), np.array([[0, 1, 1], [1, 0, 2]]))
    m = confusion.metrics(["a", "b", "c", "d"])
    # a: 1 hit of union 3; b: 2 of 3; c: 0 of 1; d: absent
    assert m.per_class_iou == pytest.approx((1 / 3, 2 / 3, 0.0, None))
    assert m.miou == pytest.approx((1 / 3 + 2 / 3) / 3)
    assert m.pixel_accuracy == pytest.approx(3 / 5)
    assert m.mean_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert m.frequency_weighted_iou == pytest.approx((2 * 1 / 3 + 2 * 2 / 3) / 5)
    assert m.pictures == 1


def test_one_matrix_over_the_set_is_not_the_mean_of_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = [(rng.integers(0, 3, (5, 7)), rng.integers(0, 3, (5, 7))) for _ in range(4)]
    summed, whole = ConfusionMatrix(3), ConfusionMatrix(3)
    for truth, prediction in pictures:
        summed.update(truth, prediction)
    whole.update(np.concatenate([t for t, _ in pictures]), np.concatenate([p for _, p in pictures]))
    assert np.array_equal(summed.counts, whole.counts)
    truth, prediction = (np.concatenate([pair[i] for pair in pictures]) for i in (0, 1))
    for c, iou in enumerate(summed.metrics("abc").per_class_iou):
        inter = ((truth == c) & (prediction == c)).sum()
        assert iou == pytest.approx(inter / ((truth == c) | (prediction == c)).sum())


def test_only_ignored_pixels() -> None:
    confusion = ConfusionMatrix(2)
    confusion.update(np.full((2, 2), 255), np.zeros((2, 2)))
    m = confusion.metrics(["a", "b"])
    assert (m.miou, m.pixel_accuracy, m.per_class_iou) == (0.0, 0.0, (None, None))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), "differ in size"),
        (np.full((2, 2), 3), np.zeros((2, 2)), r"truth holds classes 3\.\.3, not 0\.\.1"),
        (np.zeros((2, 2)), np.full((2, 2), 9), r"prediction holds classes 9\.\.9, not 0\.\.1"),
    ],
)
def test_what_does_not_fit_is_an_error(truth: np.ndarray, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(2).update(truth, prediction)
