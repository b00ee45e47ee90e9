"""Scores of a predictor on a data set, at full label resolution and in constant memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from atrous.config import to_dict
from atrous.data.base import SegmentationDataset
from atrous.errors import InputError
from atrous.metrics import ConfusionMatrix, Metrics
from atrous.predict import Predictor


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    limit: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    broken: list[str] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Metrics:
    """Predict every picture (the first `limit`) and compare with its mask at the mask's own size.

    `progress(done, of, miou so far)` is called after each picture. InputError where the classes do not match, and for
    a picture that cannot be read; where a list `broken` is given, it goes there instead. shard: (which, of how many):
    every picture is in one of them, so that the confusion matrices of all add up to that of the whole.
    """
    names, ours = dataset.labels.names, predictor.labels.names
    if len(names) != len(ours):
        raise InputError(
            f"the model knows {len(ours)} classes ({', '.join(ours[:4])}...), "
            f"the data {len(names)} ({', '.join(names[:4])}...): they must be the same"
        )
    confusion = ConfusionMatrix(len(names), dataset.labels.ignore_index)
    total = min(limit or len(dataset), len(dataset))
    for index in range(shard[0], total, shard[1]):
        try:
            sample = dataset[index]
        except InputError as error:
            if broken is None:
                raise
            broken.append(str(error))
            continue
        prediction = predictor.label_map(sample.image).cpu().numpy()
        confusion.update(sample.mask.numpy(), prediction)
        if progress:
            progress(index + 1, total, confusion.metrics(names).miou)
    return confusion.metrics(names)


def collapsed(metrics: Metrics) -> str | None:
    """A warning where every pixel is given the same class though the truth has several; None as a rule."""
    predicted, true = metrics.confusion.sum(0) > 0, metrics.confusion.sum(1) > 0
    if predicted.sum() != 1 or true.sum() < 2:
        return None
    return (
        f"every pixel is predicted as {metrics.names[int(predicted.argmax())]!r}, though the truth has {true.sum()} "
        "classes: too few iterations yet, or the learning rate is too high"
    )


def table(metrics: Metrics) -> Table:
    """The per-class table that `atrous evaluate` prints."""
    result = Table("class", "IoU", "accuracy", "share of pixels")
    for column in result.columns[1:]:
        column.justify = "right"
    shares = metrics.confusion.sum(1) / max(metrics.confusion.sum(), 1)
    rows = zip(metrics.names, metrics.per_class_iou, metrics.per_class_accuracy, shares, strict=True)
    for name, iou, accuracy, share in rows:
        result.add_row(name, _figure(iou), _figure(accuracy), f"{share:.2%}")
    return result


def _figure(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"


def summary(metrics: Metrics) -> str:
    return (
        f"mIoU {metrics.miou:.4f}   pixel accuracy {metrics.pixel_accuracy:.4f}   "
        f"mean accuracy {metrics.mean_accuracy:.4f}   frequency-weighted IoU {metrics.frequency_weighted_iou:.4f}"
    )


def write_json(path: Path, metrics: Metrics, predictor: Predictor, **about: Any) -> None:
    """Scores with the protocol they were measured by; written beside and renamed."""
    content = {**about, "protocol": to_dict(predictor.protocol), **metrics.to_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
