"""Which pictures make a batch, and what is random about each: both follow from seed and epoch alone.

So an epoch can be entered in its middle, and any number of loading processes gives the same batches.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from atrous.data.base import Sample, SegmentationDataset
from atrous.errors import InputError

TRIES = 20  # pictures that are tried in place of one that cannot be read


class DataError(InputError):
    """A picture or a loading process failed between two steps: the run as it stands is good, and can be kept."""


class Draw(NamedTuple):
    """A picture of the data set, and the seed of its augmentation."""

    picture: int
    seed: int


class Batch(NamedTuple):
    """images: (N, 3, H, W) uint8. masks: (N, H, W) int64. names: of the N pictures. broken: what could not be read."""

    images: Tensor
    masks: Tensor
    names: list[str]
    broken: list[str]


class Batches(Sampler[list[Draw]]):
    """The batches of an epoch; data that does not fill the last step is left out, data too few for one goes round.

    pictures: how many the data set has. batch_size: of a batch, over all processes. per_step: batches in a step.
    weights: how often each picture is drawn, with replacement; None: each once. process, processes: whose share.
    """

    def __init__(
        self,
        pictures: int,
        batch_size: int,
        seed: int,
        *,
        per_step: int = 1,
        weights: NDArray[np.float64] | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % processes:
            raise InputError(
                f"batch_size {batch_size} is shared by {processes} processes: give a multiple of {processes}"
            )
        self.pictures, self.batch_size, self.seed = pictures, batch_size, seed
        self.per_step, self.weights = per_step, weights
        self.process, self.processes = process, processes
        self.epoch, self.first = 0, 0

    def begin(self, epoch: int, first: int = 0) -> None:
        """The next iteration is over `epoch`, from its batch number `first` on."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return max(1, self.pictures // (self.batch_size * self.per_step)) * self.per_step

    def draws(self) -> list[Draw]:
        """The whole epoch, for all processes."""
        random = np.random.default_rng([self.seed, self.epoch])
        count = len(self) * self.batch_size
        if self.weights is None:
            order = np.resize(random.permutation(self.pictures), count)
        else:
            order = random.choice(self.pictures, count, p=self.weights / self.weights.sum())
        seeds = random.integers(2**63, size=count)
        return [Draw(int(index), int(seed)) for index, seed in zip(order, seeds, strict=True)]

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self.draws()
        for start in range(self.first * self.batch_size, len(draws), self.batch_size):
            yield draws[start : start + self.batch_size][self.process :: self.processes]


class Drawn(Dataset[tuple[Sample | None, list[str]]]):
    """A data set that is asked for a `Draw`: the sample, augmented by the draw's own seed, and what was broken.

    A picture that cannot be read gives None and the reason; with `skip_broken` the next one takes its place.
    """

    def __init__(self, data: SegmentationDataset, skip_broken: bool = False) -> None:
        self.data, self.skip_broken = data, skip_broken

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw) -> tuple[Sample | None, list[str]]:
        broken: list[str] = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw.seed)
            for offset in range(min(TRIES, len(self.data)) if self.skip_broken else 1):
                try:
                    return self.data[(draw.picture + offset) % len(self.data)], broken
                except (InputError, OSError) as error:
                    broken.append(str(error))
        return None, broken


def collate(samples: Sequence[tuple[Sample | None, list[str]]]) -> Batch:
    """One batch of what `Drawn` gives; without pictures where one of them is missing."""
    found = [sample for sample, _ in samples if sample is not None]
    broken = [line for _, lines in samples for line in lines]
    if len(found) < len(samples):
        return Batch(torch.empty(0), torch.empty(0), [], broken)
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in found])
    masks = torch.stack([sample.mask.as_subclass(Tensor) for sample in found])
    return Batch(images, masks.long(), [sample.name for sample in found], broken)


def steps(loader: Any, per_step: int = 1) -> Iterator[list[Batch]]:
    """The batches of each step. DataError for a picture that cannot be read, or a loading process that died."""
    batches = iter(loader)
    while True:
        try:
            with own_child_signal():
                step = list(islice(batches, per_step))
        except (RuntimeError, OSError, EOFError) as error:  # the last two: its connection was cut
            if isinstance(error, RuntimeError) and "worker" not in str(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"a process that loads pictures died ({reason}): where memory ran out, lower --workers"
            ) from None
        if not step:
            return
        for batch in step:
            if not batch.names:
                raise DataError(f"{batch.broken[-1]}; mend it, or leave such out with --skip_broken")
        yield step


@contextlib.contextmanager
def own_child_signal() -> Iterator[None]:
    """The handler of SIGCHLD that is there stays. A DataLoader sets one that raises as soon as a process of its own
    died, in the middle of a step too; it looks after them anyway when it is asked for a batch.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def class_pixels(
    data: SegmentationDataset, skip_broken: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pictures, C) pixels of each class in each mask, and (pictures,) all labelled ones; one pass over the masks."""
    classes = len(data.labels)
    pixels = np.zeros((len(data), classes), np.int64)
    for index in range(len(data)):
        try:
            mask = data.mask(index)
        except (InputError, OSError):
            if not skip_broken:
                raise
            continue
        known = mask[(mask != data.labels.ignore_index) & (mask < classes)]
        pixels[index] = np.bincount(known.ravel(), minlength=classes)
    return pixels, pixels.sum(1)


def rare_class_weights(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The chance of each picture where a class is drawn evenly, then one of the pictures that show it.

    pixels: (pictures, C). Closed form: the mean over the classes c that occur of [picture shows c] / pictures of c
    (class-balanced sampling, Shen et al. 2016, "Relay backpropagation", sec. 4.1).
    """
    shows = pixels > 0
    shown = shows.sum(0)
    occurs = shown > 0
    if not occurs.any():
        return np.full(len(pixels), 1 / len(pixels))
    chances: NDArray[np.float64] = (shows[:, occurs] / shown[occurs]).mean(1)
    return chances


REPEAT_SHARE = 0.1  # of the pictures: a class that fewer show is repeated


def repeat_factors(pixels: NDArray[np.int64], share: float = REPEAT_SHARE) -> NDArray[np.float64]:
    """How often each picture is drawn: max over its classes of max(1, sqrt(share / share of pictures that show it)).

    pixels: (pictures, C). Repeat factor sampling (Gupta, Dollar, Girshick 2019, "LVIS", sec. 4.1): between drawing
    pictures evenly and drawing classes evenly, whose few pictures would be learnt by heart.
    """
    shows = pixels > 0
    frequency = np.maximum(shows.mean(0), 1 / max(len(pixels), 1))
    of_class = np.maximum(1, np.sqrt(share / frequency))
    factors: NDArray[np.float64] = np.where(shows, of_class, 1.0).max(1, initial=1.0)
    return factors
