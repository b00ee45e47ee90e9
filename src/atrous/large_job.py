"""What the prediction of a large picture has on disk while it runs, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.raster.labels import description_of, ignored, label_dtype, write_label_tiff
from atrous.replacing import write_text
from atrous.visualize import STYLE, Style, draw

OVERVIEW = 1024  # pixels of its longer side, at most
SPARE = 2**26  # bytes of the disk left free

# (top, left, height, width) -> pixels (h, w, 3) uint8, and which of them are valid (h, w)
Look = Callable[[int, int, int, int], tuple[NDArray[Any], NDArray[Any]]]


class Job:
    """What a prediction has written so far, in a folder of its own that goes when the result is in place.

    labels.raw: all labels, row by row. picture.raw: the pixels of the overview. job.json: the settings, and which
    window row of which part comes next; it is written when all before are in the files.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int], labels: Labels, settings: dict[str, Any]
    ) -> None:
        self.folder, self.shape, self.labels = folder, shape, labels
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.dtype = label_dtype(labels)
        self.step = -(-max(shape) // OVERVIEW)
        self.small = (-(-shape[0] // self.step), -(-shape[1] // self.step), 3)
        self.part = self.row = 0
        self.files: dict[str, BinaryIO] = {}

    @property
    def description(self) -> str:
        """What the label map says of itself: by it a finished one is known."""
        settings = json.dumps(self.settings, sort_keys=True).encode()
        return f"settings: SHA-256 {hashlib.sha256(settings).hexdigest()}"

    def is_finished(self, target: Path) -> bool:
        """Whether this file is the label map of these settings; it gets its name last."""
        return description_of(target) == self.description

    def begin(self, resume: bool) -> None:
        """Open the files, new or as they were left. InputError for those of other settings, and for a full disk."""
        note = self._note() if resume and self.folder.exists() else None
        if note is None:
            self.remove()
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
        note = {"settings": self.settings, "part": self.part, "row": self.row}
        write_text(self.folder / "job.json", json.dumps(note))

    def advance(self, part: int, row: int) -> None:
        """All before this window row of this part is written."""
        for file in self.files.values():
            os.fsync(file.fileno())
        self.part, self.row = part, row
        self._write_note()

    def write(self, top: int, left: int, labels: NDArray[Any], look: Look) -> None:
        """Labels (h, w) from (top, left) on; what lies beyond the picture is left out."""
        labels = labels[: self.shape[0] - top, : self.shape[1] - left].astype(self.dtype)
        pixels, valid = look(top, left, *labels.shape)
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

    def finish(
        self,
        target: Path,
        overview: Path,
        extratags: list[tuple[int, int, int, Any, bool]],
        style: Style = STYLE,
    ) -> None:
        """Put the results in place, and remove the folder."""
        write_label_tiff(
            self.folder / target.name,
            self.rows,
            self.shape,
            self.labels,
            extratags,
            description=self.description,
        )
        small = [self.rows(y, y + 1)[0, :: self.step] for y in range(0, self.shape[0], self.step)]
        self.files["picture.raw"].seek(0)
        pixels = np.frombuffer(self.files["picture.raw"].read(), np.uint8).reshape(self.small)
        look = draw(pixels, np.stack(small), self.labels, style)
        Image.fromarray(look).save(self.folder / overview.name)
        (self.folder / overview.name).replace(overview)
        (self.folder / target.name).replace(target)
        self.remove()

    def remove(self) -> None:
        """All that is left of it, the note first, which would be believed without the rest."""
        self.close()
        (self.folder / "job.json").unlink(missing_ok=True)
        if self.folder.exists():
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
