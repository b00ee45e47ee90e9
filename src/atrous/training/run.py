"""What a training run is, and the files that it leaves: checkpoints, log.csv, TensorBoard, samples."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from atrous import checkpoint
from atrous.checkpoint import Metadata
from atrous.config import Recipe
from atrous.data.base import SegmentationDataset
from atrous.errors import InputError
from atrous.importers.initialise import Taken
from atrous.metrics import Metrics
from atrous.predict import Predictor
from atrous.replacing import replacing
from atrous.training.batches import Batch, Batches
from atrous.training.ema import MovingAverage
from atrous.visualize import colourize, overlay, panel

SAMPLES = 4  # validation pictures that are drawn at every evaluation
COLUMNS = ("iteration", "epoch", "seconds", "loss", "learning_rate", "miou", "pixel_accuracy")


@dataclass
class Run:
    """The state of a training run."""

    recipe: Recipe
    fabric: Fabric
    model: Any  # what Fabric made of `objective.Scores` of the network
    optimizer: Any
    loader: Any
    batches: Batches  # what the loader loads
    train_data: SegmentationDataset
    val_data: SegmentationDataset
    class_weights: Tensor | None
    folder: Path
    iterations: int  # in all
    iteration: int = 0  # done
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    evaluated: int = 0  # the iteration that was last measured
    window: list[float] = field(default_factory=list)  # losses since the last row of the log
    loss: float = math.nan  # mean since the last row of the log
    best_miou: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # pictures that `recipe.skip_broken` left out
    average: MovingAverage | None = None  # of the weights, with `recipe.ema`
    taken: Taken | None = None  # from `recipe.init`
    saved: float = 0.0  # when the state was last written, by time.monotonic

    @property
    def network(self) -> Any:
        """The model itself, as `create_model` built it."""
        return self.model.module.network

    @property
    def measured(self) -> Any:
        """The model that is evaluated and saved: the average of the weights where there is one."""
        return self.average.network if self.average else self.network

    @property
    def metadata(self) -> Metadata:
        """What the checkpoints of this run say besides their weights."""
        return checkpoint.metadata_of(self.network)


class Watcher(typing.Protocol):
    """Who wants to see a run go by; the command line draws it."""

    def started(self, run: Run) -> None: ...
    def stepped(self, run: Run) -> None: ...
    def evaluated(self, run: Run, metrics: Metrics) -> None: ...


def write_failed(path: Path, error: Exception) -> InputError:
    """What to say when a file of the run cannot be written: the disk is full, as a rule."""
    return InputError(
        f"{path}: could not be written ({str(error).splitlines()[0]}): what was there before is untouched; "
        f"make room, then `atrous train --resume {path.parent}`"
    )


def check_finite(run: Run) -> None:
    """InputError where the last step broke the weights: nothing good is to be overwritten with them."""
    for name, weights in run.network.named_parameters():
        if not weights.isfinite().all():
            raise InputError(
                f"{name} is no longer finite after iteration {run.iteration}, and nothing was saved: "
                f"lower --learning_rate (now {run.recipe.learning_rate:g}) or raise --warmup"
            )


def save(run: Run, name: str) -> None:
    """Write a checkpoint. InputError where there is no room for it."""
    path = run.folder / f"{name}.safetensors"
    if run.fabric.is_global_zero:
        try:
            checkpoint.save(run.measured, path, run.metadata)
        except (SafetensorError, OSError) as error:
            raise write_failed(path, error) from error


def mean_of_processes(run: Run, value: Tensor) -> Tensor:
    """The mean of each process's `value`, a number."""
    if run.fabric.world_size == 1:
        return value
    mean: Tensor = run.fabric.all_reduce(value, reduce_op="mean")  # type: ignore[assignment]
    return mean


def add_up(run: Run, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over all processes; whole numbers, so it is exact."""
    if run.fabric.world_size == 1:
        return counts
    total: Any = run.fabric.all_reduce(torch.from_numpy(counts), reduce_op="sum")
    return np.asarray(total.cpu())


def draw_samples(run: Run, predictor: Predictor) -> None:
    """A panel of fixed validation pictures with truth and prediction."""
    if not run.fabric.is_global_zero:
        return
    labels = run.metadata.labels
    rows = []
    for index in np.linspace(0, len(run.val_data) - 1, min(SAMPLES, len(run.val_data))).astype(int):
        try:
            sample = run.val_data[int(index)]
        except InputError:
            if not run.recipe.skip_broken:
                raise
            continue
        image = sample.image.permute(1, 2, 0).numpy()
        prediction = predictor.predict(image).labels
        rows.append([image, colourize(sample.mask.numpy(), labels), overlay(image, prediction, labels)])
    if not rows:
        return
    sheet = panel(rows, ("picture", "truth", "prediction"), labels)
    path = run.folder / "samples" / f"{run.iteration:06d}.png"
    try:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(sheet).save(path)
    except OSError as error:
        raise write_failed(path, error) from error


def tensorboard(folder: Path, iteration: int = 0) -> list[Any]:
    """A TensorBoard log in the run's folder, where the package is installed; log.csv is always written.

    What an interrupted run logged after `iteration` is left out.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return []
    purge: dict[str, Any] = {"purge_step": iteration + 1} if iteration else {}
    return [TensorBoardLogger(folder, name="tensorboard", version="", **purge)]


def begin_log(run: Run) -> None:
    """log.csv with what the run has behind it, so that a resumed run repeats no row."""
    if not run.fabric.is_global_zero:
        return
    with replacing(run.folder / "log.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(run.history)


def log(run: Run, **values: float) -> None:
    """A row in log.csv, and the same to TensorBoard."""
    row = {"iteration": run.iteration, "epoch": run.epoch, "seconds": round(run.seconds, 2), **values}
    run.history.append(row)
    path = run.folder / "log.csv"
    if not run.fabric.is_global_zero:
        return
    try:
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        run.fabric.log_dict(values, step=run.iteration)
    except OSError as error:
        raise write_failed(path, error) from error


def close_log(run: Run) -> None:
    """Write what TensorBoard's own thread has not written yet; a row that comes later opens its log again."""
    for logger in run.fabric.loggers:
        logger.finalize("success")


def note_broken(run: Run, lines: list[str]) -> None:
    """Keep in mind, and in broken.txt, what could not be read and was left out."""
    fresh = [line for line in dict.fromkeys(lines) if line not in run.broken]
    if fresh:
        run.broken += fresh
        with (run.folder / "broken.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in fresh)


def not_finite(run: Run, loss: float, step: list[Batch]) -> InputError:
    """What to say of a loss that is no number; the names of the step's pictures go to not_finite.json."""
    names = [name for batch in step for name in batch.names]
    report = {"iteration": run.iteration, "loss": str(loss), "pictures": names}
    path = run.folder / "not_finite.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return InputError(
        f"the loss became {loss} at iteration {run.iteration}: lower --learning_rate "
        f"(now {run.recipe.learning_rate:g}) or raise --warmup; the pictures of that step, {shown}, are in {path}"
    )
