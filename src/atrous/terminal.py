"""What a person sees while the work goes on: progress with the time left, tables, and plain lines in a log file."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from atrous.errors import InputError
from atrous.evaluation import collapsed
from atrous.metrics import Metrics

if TYPE_CHECKING:  # training's libraries take a second to import, which a prediction need not wait for
    from atrous.training.run import Run

LARGE_PHOTO = 2500  # pixels; Cityscapes' 2048 are trained on as they are
SECONDS_BETWEEN_LINES = 15  # where the output is no terminal and no bar can move

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def say(message: Any) -> None:
    """Print a line as it is, or a table; a line is not broken, so that paths and commands can be copied."""
    markup = not isinstance(message, str)  # a file may be called [red].png
    console.print(message, soft_wrap=not isinstance(message, Table), markup=markup)


def check_writable(folder: str | Path | None) -> None:
    """InputError where nothing can be written below `folder`, said before any work is done."""
    place = Path(folder or "runs").absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{folder}: cannot write there ({place} is no folder you may write to)")


class Bar:
    """A progress bar with elapsed and remaining time; plain lines now and then where the output is no terminal."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.moving = sys.stdout.isatty()
        self.last_line = time.monotonic()
        self.begun = time.monotonic()
        self.before: int | None = None  # steps that were done before this began, where it goes on
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not self.moving,
        )
        self.task = self.progress.add_task(title, total=1, note="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def stage(self, title: str, done: int, of: int, note: str = "") -> None:
        """`show` in work of several stages; a new `title` starts the clock anew."""
        if title != self.title:
            self.title, self.begun, self.before = title, time.monotonic(), None
            self.progress.reset(self.task, description=title)
        self.show(done, of, note)

    def show(self, done: int, of: int, note: str = "") -> None:
        """`done` steps `of` so many, with a word on how it goes."""
        self.progress.update(self.task, completed=done, total=of, note=note)
        now = time.monotonic()
        if self.before is None:
            self.before = done - 1
        if not self.moving and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.begun) / (done - self.before) * (of - done)
            say(f"{self.title} {done}/{of}   {left:.0f} s left   {note}")


class TrainingDisplay(Bar):
    """Shows a training run: what it is, how far, the loss, and a line for every evaluation."""

    def __init__(self) -> None:
        super().__init__("train")
        self.folder: Path | None = None  # of the run, as soon as there is one

    def started(self, run: Run) -> None:
        self.folder = run.folder
        config, recipe = run.network.config, run.recipe
        crop = (
            recipe.crop_size
            if isinstance(recipe.crop_size, int)
            else "x".join(map(str, recipe.crop_size or ()))
        )
        say(
            f"{config.name} on {config.backbone}, output stride {config.output_stride}, "
            f"{config.num_classes} classes, {sum(p.numel() for p in run.network.parameters()) / 1e6:.2f} M parameters"
        )
        processes = f" in {run.fabric.world_size} processes" if run.fabric.world_size > 1 else ""
        say(
            f"{recipe.data}: {len(run.train_data)} pictures to learn from, {len(run.val_data)} to measure on; "
            f"{run.iterations} iterations of {recipe.batch_size} crops of {crop} px on {run.fabric.device}"
            f"{processes}, {recipe.precision}"
        )
        id_maps = dict.fromkeys(data.describe() for data in (run.train_data, run.val_data))
        for id_map in id_maps:  # one, unless the two parts are numbered differently
            say(id_map)
        for doubt in dict.fromkeys(data.doubt for data in (run.train_data, run.val_data) if data.doubt):
            say(f"warning: {doubt}")
        if run.taken:
            say(str(run.taken))
        say(
            f"run folder {run.folder}"
            + (f", goes on after iteration {run.iteration}" if run.iteration else "")
        )
        try:
            longest = max(run.val_data[0].image.shape[-2:])
        except InputError:
            longest = 0  # the evaluation says what is wrong with it
        if recipe.longer_side is None and longest > LARGE_PHOTO:
            say(
                f"pictures are up to {longest} px: --longer_side 1024 would be faster, and crops would show more"
            )

    @staticmethod
    def loss(run: Run) -> str:
        """Empty before the first row of the log has one."""
        return "" if math.isnan(run.loss) else f"loss {run.loss:.4f}   "

    def stepped(self, run: Run) -> None:
        best = f"best mIoU {run.best_miou:.4f}" if run.best_miou >= 0 else ""
        self.show(run.iteration, run.iterations, f"{self.loss(run)}{best}")

    def evaluated(self, run: Run, metrics: Metrics) -> None:
        say(
            f"iteration {run.iteration}/{run.iterations}   epoch {run.epoch}   {run.seconds:.0f} s   "
            f"{self.loss(run)}val mIoU {metrics.miou:.4f}   pixel accuracy {metrics.pixel_accuracy:.4f}"
        )
        if warning := collapsed(metrics):
            say(f"warning: {warning}")
