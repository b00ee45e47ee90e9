"""Pictures larger than memory: read by windows, predicted by windows that overlap, written as a tiled TIFF of labels.

    file -> pixel rows of a part -> windows -> scores, averaged where they overlap -> labels.raw -> NAME.tif

What is in memory does not grow with the height of the picture, and with its width only up to a limit: it is then
predicted in parts from left to right, whose sums of scores stay within HELD bytes. Labels go to a file as they are
found, with a note of how far they are; a killed job goes on from there and ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from atrous.config import Protocol, to_dict
from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.predict import Predictor
from atrous.raster import Raster, open_raster, picture_size
from atrous.raster.base import needed
from atrous.raster.labels import ignored, label_dtype, write_label_tiff
from atrous.results import Record
from atrous.segment_files import Outcome
from atrous.tiling import Axis, parts, slide_in_blocks
from atrous.visualize import overlay

LARGE = 2**26  # pixels (8192 x 8192): pictures beyond are predicted by windows
SMALL_FILE = 2**20  # bytes: what unpacks from less to so many pixels is refused as a decompression bomb
HELD = 2**28  # bytes of the sums of scores that windows to come still add to
OVERVIEW = 1024  # pixels of its longer side, at most
SPARE = 2**26  # bytes of the disk left free

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
    held: int = HELD,
    progress: Progress | None = None,
) -> list[Path]:
    """Write `folder`/NAME.tif, the labels of a picture of any size, and NAME_overview.png, a small look at them.

    The labels are those of mode "slide" with the predictor's protocol: exactly those that `Predictor` gives in memory,
    but that scales and flips are taken of each window and not of the whole picture. Pixels without data get the
    highest number, 255. The TIFF has the picture's georeference.

    resume: go on with what a killed call left in `folder`/.NAME.tif.partial. settings: what else must be the same
    then, such as the checkpoint. held: bytes of scores kept between windows. progress(done, of, name): windows.

    Raises InputError where the picture cannot be read by windows or is damaged, where the disk has no room, where
    results exist already (without `overwrite`), and where `resume` finds the work of other settings.
    """
    needed("tifffile", "TIFF")
    protocol = window_protocol(predictor)
    target, overview = folder / f"{name}.tif", folder / f"{name}_overview.png"
    job_folder = target.with_name(f".{target.name}.partial")
    if resume and target.exists() and not job_folder.exists():
        return [target, overview]
    raster = open_raster(picture, upright)
    _refuse_existing(picture, target, overview, job_folder, overwrite, resume)
    assert protocol.size is not None
    rows, columns = (
        Axis(length, window, protocol.overlap)
        for length, window in zip((raster.height, raster.width), protocol.size, strict=True)
    )
    split = parts(columns, len(predictor.labels) * rows.shared * 4, held)
    job = Job(job_folder, (raster.height, raster.width), predictor.labels)
    stat = picture.stat()
    job.begin(
        {
            "picture": [str(picture.resolve()), stat.st_size, stat.st_mtime_ns],
            "size": [raster.height, raster.width],
            "protocol": to_dict(protocol),
            "classes": list(predictor.labels.names),
            "parts": [[part.start, part.stop] for part in split],
            "upright": upright,
            **(settings or {}),
        },
        resume,
    )
    try:
        _predict(predictor, raster, rows, columns, split, job, picture.name, progress)
        job.finish(target, overview, raster.tags())
    except InputError:  # the picture is damaged, and going on would not help
        job.close()
        shutil.rmtree(job_folder)
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
    probabilities: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    upright: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """`segment_large` for many, name -> file; what becomes of them goes to `record` and `outcome`.

    progress(file, done, of): windows of that file.
    """
    if not pictures:
        return
    if probabilities:
        first = next(iter(pictures.values()))
        raise InputError(
            f"{first}: the probabilities of a large picture are not kept: leave out --probabilities"
        )
    protocol = window_protocol(predictor)
    record.open()
    try:
        for name, path in pictures.items():
            if resume and name in record.done:
                outcome.skipped += 1
                continue
            show = None if progress is None else lambda done, of, title: progress(title, done, of)
            record.begin(name, path)
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
                    progress=show,
                )
            except InputError as error:
                record.fail(name, str(error))
                outcome.broken.append(str(error))
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
                labels = predictor.probabilities(block.scores)[0].argmax(0).cpu().numpy()
                job.write(block.top, block.left, labels, strip)
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


class Job:
    """What a prediction has written so far, in a folder of its own that goes when the result is in place.

    labels.raw: all labels, row by row. picture.raw: the pixels of the overview. job.json: the settings, and which
    window row of which part comes next; it is written when all before are in the files.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], labels: Labels) -> None:
        self.folder, self.shape, self.labels = folder, shape, labels
        self.dtype = label_dtype(labels)
        self.step = -(-max(shape) // OVERVIEW)
        self.small = (-(-shape[0] // self.step), -(-shape[1] // self.step), 3)
        self.part = self.row = 0
        self.files: dict[str, BinaryIO] = {}

    def begin(self, settings: dict[str, Any], resume: bool) -> None:
        """Open the files, new or as they were left. InputError for those of other settings, and for a full disk."""
        self.settings = json.loads(json.dumps(settings))
        note = self._note() if resume and self.folder.exists() else None
        if note is None and self.folder.exists():
            shutil.rmtree(self.folder)
        if note is not None:
            for key, value in self.settings.items():
                if note["settings"].get(key) != value:
                    raise InputError(
                        f"{self.folder}: this prediction was begun with another {key}: begin anew with --overwrite"
                    )
            self.part, self.row = note["part"], note["row"]
        sizes = {
            "labels.raw": self.shape[0] * self.shape[1] * self.dtype.itemsize,
            "picture.raw": self.small[0] * self.small[1] * 3,
        }
        self._check_room(sum(sizes.values()), begun=note is not None)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            path = self.folder / name
            path.touch()
            self.files[name] = path.open("r+b", buffering=0)
            _reserve(self.files[name], size, path)
        if note is None:
            self._write_note()

    def _check_room(self, size: int, begun: bool) -> None:
        """The labels twice: as they are found, and compressed, which may not make them smaller."""
        place = self.folder
        while not place.exists():
            place = place.parent
        wanted, free = size * (1 if begun else 2) + SPARE, shutil.disk_usage(place).free
        if free < wanted:
            raise InputError(
                f"{self.folder.parent}: {self.shape[1]}x{self.shape[0]} labels need {wanted / 1e9:.2f} GB of disk "
                f"while they are written, and {free / 1e9:.2f} GB are free: make room, or give another --out"
            )

    def _note(self) -> dict[str, Any] | None:
        """What job.json says; None where the job was killed before it."""
        path = self.folder / "job.json"
        try:
            note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            note["settings"], note["part"], note["row"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: is damaged: begin anew with --overwrite") from None
        return note

    def _write_note(self) -> None:
        beside = self.folder / ".job.json"
        beside.write_text(json.dumps({"settings": self.settings, "part": self.part, "row": self.row}))
        beside.replace(self.folder / "job.json")

    def advance(self, part: int, row: int) -> None:
        """All before this window row of this part is written."""
        for file in self.files.values():
            os.fsync(file.fileno())
        self.part, self.row = part, row
        self._write_note()

    def write(self, top: int, left: int, labels: NDArray[Any], strip: Strip) -> None:
        """Labels (h, w) from (top, left) on; what lies beyond the picture is left out."""
        labels = labels[: self.shape[0] - top, : self.shape[1] - left].astype(self.dtype)
        pixels, valid = strip.look(top, left, *labels.shape)
        labels[~valid] = ignored(self.labels)
        for y, row in enumerate(labels):
            self._put("labels.raw", row, (top + y) * self.shape[1] + left)
        first = -(-top // self.step), -(-left // self.step)
        small = pixels[first[0] * self.step - top :: self.step, first[1] * self.step - left :: self.step]
        for y, row in enumerate(small):
            self._put("picture.raw", row, ((first[0] + y) * self.small[1] + first[1]) * 3)

    def _put(self, name: str, row: NDArray[Any], place: int) -> None:
        self.files[name].seek(place * row.itemsize)
        self.files[name].write(row.tobytes())

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """Label rows that were written."""
        width = self.shape[1] * self.dtype.itemsize
        self.files["labels.raw"].seek(top * width)
        data = self.files["labels.raw"].read((bottom - top) * width)
        return np.frombuffer(data, self.dtype).reshape(bottom - top, self.shape[1])

    def finish(self, target: Path, overview: Path, extratags: list[tuple[int, int, int, Any, bool]]) -> None:
        """Put the results in place, and remove the folder."""
        write_label_tiff(self.folder / target.name, self.rows, self.shape, self.labels, extratags)
        small = [self.rows(y, y + 1)[0, :: self.step] for y in range(0, self.shape[0], self.step)]
        self.files["picture.raw"].seek(0)
        pixels = np.frombuffer(self.files["picture.raw"].read(), np.uint8).reshape(self.small)
        look = overlay(pixels, np.stack(small), self.labels)
        Image.fromarray(look).save(self.folder / overview.name)
        (self.folder / overview.name).replace(overview)
        (self.folder / target.name).replace(target)
        self.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        while self.files:
            self.files.popitem()[1].close()


def _reserve(file: BinaryIO, size: int, path: Path) -> None:
    """Take the disk's room now, so that it cannot run out later."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise InputError(f"{path}: no room for {size / 1e6:.0f} MB ({error.strerror})") from None
