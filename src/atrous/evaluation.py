"""Scores of a predictor on a data set, at full label resolution and in constant memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from atrous.boundary import BoundaryScores
from atrous.data.base import Sample, SegmentationDataset
from atrous.errors import InputError
from atrous.hints import check_value
from atrous.importers.label_names import check_same_classes
from atrous.metrics import ConfusionMatrix, Metrics
from atrous.predict import Predictor
from atrous.replacing import write_text
from atrous.stream import ahead, buckets


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    limit: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    broken: list[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    *,
    batch_size: int = 1,
    trimap: Sequence[int] = (),
    boundary_share: float | None = None,
    add_up: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda counts: counts,
    each: Callable[[Sample, NDArray[np.int64]], None] | None = None,
) -> Metrics:
    """Predict every picture (the first `limit`, at least 1) and compare with its mask at the mask's own size.

    dataset: of `atrous.open_dataset`.
    `progress(done, of, miou so far)` is called after each picture. InputError where the classes do not match, where no
    pixel has a label, and for a picture that cannot be read; where a list `broken` is given, it goes there instead.
    shard: (which, of how many): every picture is in one of them, so that the confusion matrices of all add up to that
    of the whole; `add_up` does that where it is given, so the scores are those of all shards. batch_size: pictures of
    one size go through the network together. trimap, boundary_share: scores near boundaries too, see
    `boundary.BoundaryScores`. each: called with every sample and its prediction (H, W).
    """
    check_value("predictor", predictor, Predictor)
    if not hasattr(dataset, "labels"):
        raise InputError(f"dataset={dataset!r}: wanted what atrous.open_dataset(path, split) returns")
    check_same_classes(predictor.metadata, dataset.labels)
    names = dataset.labels.names
    confusion = ConfusionMatrix(len(names), dataset.labels.ignore_index)
    near = BoundaryScores(len(names), dataset.labels.ignore_index, trimap, boundary_share)
    total = among(limit, len(dataset))

    def readable() -> Iterator[Sample]:
        for _, loading in ahead(dataset.__getitem__, range(shard[0], total, shard[1]), 1, batch_size + 1):
            error = loading.exception()
            if isinstance(error, InputError) and broken is not None:
                broken.append(str(error))
            else:
                yield loading.result()

    for batch in buckets(readable(), lambda it: it.image.shape, batch_size):
        predictions = predictor.label_map(torch.stack([sample.image for sample in batch])).cpu().numpy()
        for sample, prediction in zip(batch, predictions, strict=True):
            truth = sample.mask.numpy()
            confusion.update(truth, prediction)
            near.update(truth, prediction)
            if each:
                each(sample, prediction)
            if progress:
                done = min(total, (confusion.pictures + len(broken or ())) * shard[1])
                progress(done, total, confusion.metrics(names).miou)
    for matrix in (confusion, *near.matrices):
        matrix.counts = add_up(matrix.counts)
    confusion.pictures = int(add_up(np.array([confusion.pictures]))[0])
    check_measured(confusion, dataset, broken or [])
    return replace(confusion.metrics(names), trimap_miou=near.trimap_miou(), boundary_iou=near.boundary_iou())


def check_measured(
    confusion: ConfusionMatrix, dataset: SegmentationDataset, broken: Sequence[str] = ()
) -> None:
    """InputError where not one pixel was measured: a score of 0 would be none."""
    if not confusion.counts.any():
        why = (
            f"{len(broken)} cannot be read, the first: {broken[0]}"
            if broken
            else "the masks are void throughout"
        )
        raise InputError(
            f"nothing to measure: no pixel of the {dataset.split} pictures has a label "
            f"({confusion.pictures + len(broken)} looked at; {why})"
        )


def among(limit: int | None, count: int) -> int:
    """How many of `count` pictures are measured. None: all; InputError for a limit below 1."""
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be at least 1; without one all pictures are measured")
    return count if limit is None else min(limit, count)


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
    boundary = metrics.boundary_iou
    result = Table("class", "IoU", "accuracy", "share of pixels", *(["boundary IoU"] if boundary else []))
    for column in result.columns[1:]:
        column.justify = "right"
    shares = metrics.confusion.sum(1) / max(metrics.confusion.sum(), 1)
    rows = zip(metrics.names, metrics.per_class_iou, metrics.per_class_accuracy, shares, strict=True)
    for index, (name, iou, accuracy, share) in enumerate(rows):
        near = [_figure(boundary[index])] if boundary else []
        result.add_row(name, _figure(iou), _figure(accuracy), f"{share:.2%}", *near)
    return result


def _figure(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"


def summary(metrics: Metrics) -> str:
    lines = [
        f"mIoU {metrics.miou:.4f}   pixel accuracy {metrics.pixel_accuracy:.4f}   "
        f"mean accuracy {metrics.mean_accuracy:.4f}   frequency-weighted IoU {metrics.frequency_weighted_iou:.4f}"
    ]
    if metrics.trimap_miou:
        near = (f"{width} px {miou:.4f}" for width, miou in metrics.trimap_miou.items())
        lines.append(f"mIoU near true boundaries   {'   '.join(near)}")
    if metrics.boundary_miou is not None:
        lines.append(f"boundary IoU {metrics.boundary_miou:.4f}")
    return "\n".join(lines)


def check_replaceable(path: Path, measured: Mapping[str, Any]) -> None:
    """InputError where a file is there that is not the scores of this very measurement.

    measured: what it depends on, as it is given to `write_json`.
    """
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        others = [key for key, value in _plain(measured).items() if key not in there or there[key] != value]
    except (ValueError, TypeError):
        raise InputError(f"{path}: exists already, and holds no scores; give another --json") from None
    if others:
        raise InputError(
            f"{path}: holds the scores of another measurement (in {', '.join(others)}); give another --json, "
            "or --overwrite"
        )


def write_json(path: Path, metrics: Metrics, measured: Mapping[str, Any]) -> None:
    """Scores with what they were measured by."""
    content = {**_plain(measured), **metrics.to_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=2) + "\n")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
