"""Pictures larger than memory: read by windows, predicted by windows that overlap, written as a tiled TIFF of labels.

    file -> pixel rows of a part -> windows -> scores, averaged where they overlap -> labels.raw -> NAME.tif

What is in memory does not grow with the height of the picture, and with its width only up to a limit: it is then
predicted in parts from left to right, whose sums of scores stay within HELD bytes. Labels go to a file as they are
found, with a note of how far they are; a killed job goes on from there and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.config import Protocol, to_dict
from atrous.errors import InputError
from atrous.kernels.upsampling import highest
from atrous.large_job import Job
from atrous.predict import Predictor
from atrous.raster import Raster, open_raster, picture_size
from atrous.raster.base import needed
from atrous.record import Record, identity
from atrous.results import OUTPUTS, Outputs, large_files, why_broken
from atrous.segment_files import Outcome
from atrous.tiling import Axis, parts, slide_in_blocks
from atrous.visualize import STYLE, Style

LARGE = 2**26  # pixels (8192 x 8192): pictures beyond are predicted by windows
SMALL_FILE = 2**20  # bytes: what unpacks from less to so many pixels is refused as a decompression bomb
HELD = 2**28  # bytes of the sums of scores that windows to come still add to

Progress = Callable[[int, int, str], None]


def is_large(path: Path) -> bool:
    """Whether a picture is predicted by windows; one that cannot be read is not (reading it says why)."""
    try:
        if path.stat().st_size < SMALL_FILE:
            return False
        height, width = picture_size(path)
    except (InputError, OSError):
        return False
    return height * width > LARGE


def window_protocol(predictor: Predictor) -> Protocol:
    """How the predictor's protocol is carried out on a large picture: by windows of its size, views within each.

    Raises InputError for what needs the whole picture: the dense CRF, and `longer_side`.
    """
    if predictor.crf is not None:
        raise InputError(
            "the dense CRF connects every pixel of a picture with every other, which windows cannot: "
            "predict large pictures without it (--no_crf)"
        )
    if predictor.protocol.longer_side is not None:
        raise InputError(
            f"longer_side {predictor.protocol.longer_side} would shrink a large picture to nothing: give "
            "--longer_side 0 to take it at its own size, or shrink it first and predict that"
        )
    return replace(predictor.protocol, mode="slide", size=predictor.window)


def segment_large(
    predictor: Predictor,
    picture: Path,
    folder: Path,
    name: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    upright: bool = True,
    settings: dict[str, Any] | None = None,
    style: Style = STYLE,
    held: int = HELD,
    progress: Progress | None = None,
    begin: Callable[[], None] | None = None,
) -> list[Path]:
    """Write `folder`/NAME.tif, the labels of a picture of any size, and NAME_overview.png, a small look at them.

    The labels are those of mode "slide" with the predictor's protocol: exactly those that `Predictor` gives in memory,
    but that scales and flips are taken of each window and not of the whole picture. Pixels without data get the
    highest number, 255. The TIFF has the picture's georeference.

    resume: go on with what a killed call left in `folder`/.NAME.tif.partial, and leave a finished NAME.tif of the same
    settings as it is. settings: what else must be the same then, such as the checkpoint. style: of the overview.
    held: bytes of scores kept between windows.
    progress(done, of, name): windows. begin() is called when nothing is in the way, before anything is written.

    Raises InputError where the picture cannot be read by windows or is damaged, where the disk has no room, where
    results exist already (without `overwrite`), and where `resume` finds the work of other settings.
    """
    needed("tifffile", "TIFF")
    protocol = window_protocol(predictor)
    target, overview = large_files(folder, name)
    job_folder = target.with_name(f".{target.name}.partial")
    raster = open_raster(picture, upright)
    tags = raster.tags()
    assert protocol.size is not None
    rows, columns = (
        Axis(length, window, protocol.overlap)
        for length, window in zip((raster.height, raster.width), protocol.size, strict=True)
    )
    split = parts(columns, len(predictor.labels) * rows.shared * 4, held)
    job = Job(
        job_folder,
        (raster.height, raster.width),
        predictor.labels,
        {
            "picture": identity(picture),
            "size": [raster.height, raster.width],
            "protocol": to_dict(protocol),
            "classes": list(predictor.labels.names),
            "parts": [[part.start, part.stop] for part in split],
            "upright": upright,
            "style": to_dict(style),
            **(settings or {}),
        },
    )
    finished = resume and job.is_finished(target)
    if not finished:
        _refuse_existing(picture, target, overview, job_folder, overwrite, resume)
    if begin:
        begin()
    if finished:
        job.remove()  # where it was killed after the renaming
        return [target, overview]
    job.begin(resume)
    try:
        _predict(predictor, raster, rows, columns, split, job, picture.name, progress)
        job.finish(target, overview, tags, style)
    except InputError:  # the picture is damaged, and going on would not help
        job.remove()
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or target}: could not be written ({error.strerror}): make room, then go on with --resume"
        ) from None
    finally:
        job.close()
    return [target, overview]


def segment_large_files(
    predictor: Predictor,
    pictures: dict[str, Path],
    folder: Path,
    record: Record,
    outcome: Outcome,
    *,
    outputs: Outputs = OUTPUTS,
    overwrite: bool = False,
    resume: bool = False,
    upright: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """`segment_large` for many, name -> file; what becomes of them goes to `record`'s file and to `outcome`.

    progress(file, done, of): windows of that file.
    """
    if not pictures:
        return
    if outputs.need_probabilities:
        flag = "--probabilities" if outputs.probabilities else "--polygons"
        first = next(iter(pictures.values()))
        raise InputError(f"{first}: the probabilities of a large picture are not kept: leave out {flag}")
    protocol = window_protocol(predictor)
    outcome.protocols.append(f"large ones: {protocol}")
    record = record.by(protocol=to_dict(protocol))
    if resume:
        record.read()
    record.open()
    try:
        for name, path in pictures.items():
            if resume and record.is_done(name, path):
                outcome.skipped += 1
                continue
            show = None if progress is None else lambda done, of, title: progress(title, done, of)
            try:
                segment_large(
                    predictor,
                    path,
                    folder,
                    name,
                    overwrite=overwrite,
                    resume=resume,
                    upright=upright,
                    settings={"checkpoint": record.settings.get("checkpoint")},
                    style=outputs.style,
                    progress=show,
                    begin=partial(record.begin, name, identity(path), large_files(folder, name)),
                )
            except (InputError, OSError) as error:
                outcome.broken.append(why_broken(path, error))
                record.fail(name, outcome.broken[-1])
            else:
                record.finish(name)
                outcome.done += 1
                outcome.notes.append(f"{path}: by windows ({protocol})")
    finally:
        record.close()


def _refuse_existing(
    picture: Path, target: Path, overview: Path, job_folder: Path, overwrite: bool, resume: bool
) -> None:
    for path in (target, overview):
        if path.exists() and path.samefile(picture):
            raise InputError(f"{path}: is a picture to predict; give another --out")
        if path.exists() and not overwrite and not (resume and job_folder.exists()):
            raise InputError(f"{path}: exists already; give another --out, or --overwrite")
    if job_folder.exists() and not (resume or overwrite):
        raise InputError(
            f"{job_folder}: a prediction that was stopped; go on with --resume, or begin anew with --overwrite"
        )


@torch.inference_mode()
def _predict(
    predictor: Predictor,
    raster: Raster,
    rows: Axis,
    columns: Axis,
    split: list[range],
    job: Job,
    title: str,
    progress: Progress | None,
) -> None:
    """Labels of all parts into the job's file, from where it is."""
    begin = [(p, job.row if p == job.part else 0) for p in range(job.part, len(split))]
    of = sum(
        (len(rows.starts) - rows.first_over(row)) * (split[p].stop - columns.first_over(split[p].start))
        for p, row in begin
    )
    done = 0
    for p, first_row in begin:
        strip = Strip(raster, rows, columns, split[p])

        def score(top: int, left: int, strip: Strip = strip) -> Tensor:
            return predictor.window_scores(strip.window(top, left), (rows.window, columns.window))

        for block in slide_in_blocks(score, rows, columns, split[p], first_row):
            done += 1
            if block is not None:
                if block.row > job.row:
                    job.advance(p, block.row)
                labels = highest(predictor.probabilities(block.scores)[0]).cpu().numpy()
                job.write(block.top, block.left, labels, strip.look)
            del block  # its memory is needed for the next
            if progress:
                progress(done, of, title)
        job.advance(p + 1, 0)


class Strip:
    """The pixels of the rows that a window row covers, over the width of one part."""

    def __init__(self, raster: Raster, rows: Axis, columns: Axis, part: range) -> None:
        self.raster, self.rows, self.columns = raster, rows, columns
        self.left = columns.edge(columns.first_over(part.start))
        self.right = min(raster.width, columns.edge(part.stop - 1) + columns.window)
        self.top = self.bottom = 0
        self.pixels = np.zeros((0, self.right - self.left, 3), np.uint8)
        self.valid = np.zeros((0, self.right - self.left), bool)

    def window(self, top: int, left: int) -> Tensor:
        """The pixels (1, 3, h, w) uint8 of the window there."""
        self._move(top)
        pixels = self.pixels[:, left - self.left : left - self.left + self.columns.window]
        return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())

    def look(
        self, top: int, left: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels and where they have data, of a place within the window."""
        here = (
            slice(top - self.top, top - self.top + height),
            slice(left - self.left, left - self.left + width),
        )
        return self.pixels[here], self.valid[here]

    def _move(self, top: int) -> None:
        bottom = min(self.raster.height, top + self.rows.window)
        if (top, bottom) == (self.top, self.bottom):
            return
        kept = max(0, self.bottom - top) if self.top <= top else 0
        new = self.raster.read(top + kept, bottom, self.left, self.right)
        valid = np.ones(new.pixels.shape[:2], bool) if new.valid is None else new.valid
        before = len(self.pixels) - kept
        self.pixels = np.concatenate([self.pixels[before:], new.pixels])
        self.valid = np.concatenate([self.valid[before:], valid])
        self.top, self.bottom = top, bottom
