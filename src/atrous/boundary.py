"""Scores near the boundaries of objects: mIoU in bands of some pixels (trimaps), and Boundary IoU.

Both look at the band of a label map: the pixels from which a pixel with another label is at most w away. Distances
are those of morphological dilation with a 3x3 square, w times: max(|dx|, |dy|). Void counts as a label of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics import ConfusionMatrix

# of the picture's diagonal (Cheng et al. 2021 sec. 5); 0.005 in their Cityscapes scores
BOUNDARY_SHARE = 0.02


class BoundaryScores:
    """Counts of one pass over a data set; `matrices` are what processes add up.

    widths: bands for the trimap scores: the pixels whose true label changes within w pixels, void included, as v3+
    (sec. 4.4) dilates the void rims of VOC and v1 (sec. 5), after Kohli et al. 2009, the objects' boundaries.
    share: Boundary IoU (Cheng et al. 2021) with d = share * diagonal; None: without. For each class it is the IoU of
    the truth's and the prediction's pixels of that class that lie within d of another class or the picture's rim.
    Void pixels of the truth are void in the prediction too, so both have the same boundary there, and are not counted.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        widths: Sequence[int] = (),
        share: float | None = None,
    ) -> None:
        if any(width < 1 for width in widths):
            raise InputError(f"trimap widths {list(widths)} must be whole numbers of pixels from 1 on")
        if share is not None and not 0 < share < 1:
            raise InputError(
                f"boundary share {share} must be between 0 and 1: a share of the picture's diagonal"
            )
        self.ignore_index, self.share = ignore_index, share
        # of each band what the one before has not
        self.rings = {width: ConfusionMatrix(num_classes, ignore_index) for width in sorted(set(widths))}
        # one class more, for what is not near a boundary
        self.boundary = ConfusionMatrix(num_classes + 1, -1) if share is not None else None

    @property
    def matrices(self) -> list[ConfusionMatrix]:
        return [*self.rings.values(), *([self.boundary] if self.boundary else [])]

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Add one picture: two (H, W) arrays of class indices."""
        before = np.full(truth.shape, False)
        for band, confusion in zip(bands(truth, list(self.rings)), self.rings.values(), strict=True):
            ring, before = band & ~before, band
            confusion.update(truth[ring], prediction[ring])
        if self.boundary is not None and self.share is not None:
            distance = max(1, round(self.share * float(np.hypot(*truth.shape))))
            void, away = truth == self.ignore_index, self.boundary.num_classes - 1
            both = []
            for labels in (truth, np.where(void, self.ignore_index, prediction)):
                (near,) = bands(labels, [distance], rim=True)
                both.append(np.where(near, labels, away)[~void])
            self.boundary.update(*both)

    def trimap_miou(self) -> dict[int, float]:
        """Width of the band in pixels: mIoU within it."""
        scores, band = {}, None
        for width, ring in self.rings.items():
            band = band or ConfusionMatrix(ring.num_classes)
            band.counts += ring.counts
            scores[width] = band.metrics([""] * ring.num_classes).miou
        return scores

    def boundary_iou(self) -> tuple[float | None, ...]:
        """Of each class; None where neither truth nor prediction has a boundary of it. Empty where not asked for."""
        if self.boundary is None:
            return ()
        return self.boundary.metrics([""] * self.boundary.num_classes).per_class_iou[:-1]


def bands(labels: NDArray[Any], widths: Sequence[int], rim: bool = False) -> Iterator[NDArray[np.bool_]]:
    """For each width, in rising order: where (H, W) labels change within so many pixels, (H, W) bool.

    rim: outside of the picture is another label too.
    """
    band, reached = changes(labels, rim), 1
    for width in widths:
        band, reached = dilate(band, width - reached), width
        yield band


def changes(labels: NDArray[Any], rim: bool = False) -> NDArray[np.bool_]:
    """Where one of the eight neighbours has another label."""
    height, width = labels.shape
    change = np.full(labels.shape, False)
    for down in (0, 1):
        for right in (-1, 0, 1) if down else (1,):
            here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
            there = (slice(down, height), slice(max(0, right), width - max(0, -right)))
            differs = labels[here] != labels[there]
            change[here] |= differs
            change[there] |= differs
    if rim:
        change[[0, -1]] = change[:, [0, -1]] = True
    return change


def dilate(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Dilation with a square of 2 reach + 1 pixels: rows, then columns, each in steps that double."""
    for axis in (0, 1):
        done = 0
        while done < min(reach, mask.shape[axis]):
            step = min(done + 1, reach - done)  # a run of 2 done + 1 may move by that without a gap
            wider, along = mask.copy(), np.moveaxis(mask, axis, 0)
            target = np.moveaxis(wider, axis, 0)
            target[step:] |= along[:-step]
            target[:-step] |= along[step:]
            mask, done = wider, done + step
    return mask
