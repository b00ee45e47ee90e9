"""Scores from one confusion matrix that is summed over the whole set (VOC's own protocol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """Fractions in 0..1. A class absent from truth and prediction has IoU None and counts in no mean.

    trimap_miou: {width: mIoU within so many pixels of a true boundary}; boundary_iou: of each class, and their mean
    `boundary_miou`; empty and None where they were not asked for (`atrous.boundary`).
    """

    names: tuple[str, ...]
    per_class_iou: tuple[float | None, ...]
    per_class_accuracy: tuple[float | None, ...]
    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    pictures: int
    confusion: NDArray[np.int64]
    trimap_miou: Mapping[int, float] = field(default_factory=dict)
    boundary_iou: tuple[float | None, ...] = ()

    @property
    def boundary_miou(self) -> float | None:
        return _mean(self.boundary_iou) if self.boundary_iou else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "per_class_iou": dict(zip(self.names, self.per_class_iou, strict=True)),
            "per_class_accuracy": dict(zip(self.names, self.per_class_accuracy, strict=True)),
            "pictures": self.pictures,
            "confusion": self.confusion.tolist(),
            **({"trimap_miou": dict(self.trimap_miou)} if self.trimap_miou else {}),
            **(
                {
                    "boundary_miou": self.boundary_miou,
                    "per_class_boundary_iou": dict(zip(self.names, self.boundary_iou, strict=True)),
                }
                if self.boundary_iou
                else {}
            ),
        }


class ConfusionMatrix:
    """counts[t, p] = pixels of class t that were predicted as p."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.pictures = 0

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Add one picture: two (H, W) arrays of class indices; pixels whose truth is `ignore_index` are left out."""
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in size")
        valid = truth != self.ignore_index
        truth, prediction = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        classes = self.num_classes
        for what, values in (("truth", truth), ("prediction", prediction)):
            if values.size and not 0 <= values.min() <= values.max() < classes:
                raise ValueError(f"{what} holds classes {values.min()}..{values.max()}, not 0..{classes - 1}")
        joint = np.bincount(truth * classes + prediction, minlength=classes * classes)
        self.counts += joint.reshape(classes, classes)
        self.pictures += 1

    def metrics(self, names: Sequence[str]) -> Metrics:
        """The scores so far."""
        counts = self.counts.astype(np.float64)
        hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        union, total = truth + predicted - hits, max(counts.sum(), 1.0)
        iou = [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]
        accuracy = [float(h / t) if t else None for h, t in zip(hits, truth, strict=True)]
        weighted = sum(t * (i or 0.0) for t, i in zip(truth, iou, strict=True)) / total
        return Metrics(
            names=tuple(names),
            per_class_iou=tuple(iou),
            per_class_accuracy=tuple(accuracy),
            miou=_mean(iou),
            pixel_accuracy=float(hits.sum() / total),
            mean_accuracy=_mean(accuracy),
            frequency_weighted_iou=float(weighted),
            pictures=self.pictures,
            confusion=self.counts.copy(),
        )


def _mean(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else 0.0
