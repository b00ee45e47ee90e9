"""Many pictures from files to files: reading, the network and writing overlap, and a killed job goes on.

    read ahead (threads) -> batches of one size -> network -> written beside (threads) -> named, recorded

Results, record and messages come in an order that follows from the pictures alone. In memory are at most the
pictures that are read ahead, those that wait for others of their size, and the results that are being written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.pictures import read_image
from atrous.errors import InputError
from atrous.predict import Predictor, Segmentation
from atrous.record import Identity, Record, identity
from atrous.results import (
    OUTPUTS,
    Outputs,
    put_in_place,
    refuse_existing,
    result_files,
    why_broken,
    write_beside,
)
from atrous.stream import ahead, buckets


class Loaded(NamedTuple):
    name: str
    picture: Identity
    image: NDArray[np.uint8]
    notes: list[str]


@dataclass
class Outcome:
    """What became of the pictures."""

    done: int = 0
    skipped: int = 0  # finished by an earlier job
    protocols: list[str] = field(default_factory=list)  # that they were predicted by
    broken: list[str] = field(default_factory=list)  # one line each
    notes: list[str] = field(default_factory=list)  # what a person should know of a picture that went well


def segment_files(
    predictor: Predictor,
    pictures: dict[str, Path],
    folder: Path,
    record: Record,
    *,
    batch_size: int = 1,
    outputs: Outputs = OUTPUTS,
    overwrite: bool = False,
    resume: bool = False,
    upright: bool = True,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Outcome:
    """Segment `pictures` (name -> file) into `folder`; those that cannot be read or named do not stop the rest.

    batch_size: pictures of one size that go through the network together. resume: leave out what `record` says is
    finished, and write what was begun anew. outputs: what is written, and how.
    progress(done, of, name) is called after each. A result that exists is never replaced without `overwrite`, and a
    picture that would be replaced by its own result never.
    """
    threads = threads or min(4, os.cpu_count() or 1)
    outcome = Outcome()
    if not pictures:
        return outcome
    outcome.protocols.append(str(predictor.protocol))
    if resume:
        record.read()
    names = [name for name in pictures if not (resume and record.is_done(name, pictures[name]))]
    outcome.skipped = len(pictures) - len(names)

    def load(name: str) -> Loaded:
        for path in result_files(folder, name, outputs):
            if path.exists() and path.samefile(pictures[name]):
                raise InputError(f"{path}: is a picture to predict; give another --out")
        if not overwrite and not (resume and record.is_begun(name, pictures[name])):
            refuse_existing(folder, name, outputs, record.other(name, pictures[name]))
        notes: list[str] = []
        picture = identity(pictures[name])
        return Loaded(name, picture, read_image(pictures[name], upright, notes), notes)

    def fail(name: str, error: BaseException) -> None:
        outcome.broken.append(why_broken(pictures[name], error))
        record.fail(name, outcome.broken[-1])
        tell(name)

    def tell(name: str) -> None:
        if progress:
            progress(outcome.done + len(outcome.broken), len(names), pictures[name].name)

    def readable() -> Iterator[Loaded]:
        for name, loading in ahead(load, names, threads, batch_size + threads):
            if error := loading.exception():
                fail(name, error)
            else:
                yield loading.result()

    def segmented() -> Iterator[tuple[Loaded, Segmentation]]:
        for batch in buckets(readable(), lambda it: it.image.shape, batch_size):
            results = predictor.predict_batch([loaded.image for loaded in batch], outputs.need_probabilities)
            yield from zip(batch, results, strict=True)

    unnamed: dict[str, dict[Path, Path]] = {}

    def write(pair: tuple[Loaded, Segmentation]) -> dict[Path, Path]:
        loaded, result = pair
        unnamed[loaded.name] = write_beside(
            result, loaded.image, folder, loaded.name, outputs, pictures[loaded.name]
        )
        return unnamed[loaded.name]

    record.open()
    try:
        with closing(ahead(write, segmented(), threads, batch_size + threads)) as writings:
            for (loaded, _), writing in writings:
                if error := writing.exception():
                    fail(loaded.name, error)
                    continue
                written = writing.result()
                record.begin(loaded.name, loaded.picture, written)
                put_in_place(written)
                del unnamed[loaded.name]
                record.finish(loaded.name)
                outcome.done += 1
                outcome.notes += loaded.notes
                tell(loaded.name)
    finally:
        record.close()
        for passing in [path for written in unnamed.values() for path in written.values()]:
            passing.unlink(missing_ok=True)
    return outcome
