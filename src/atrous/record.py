"""predictions.jsonl in the folder of the results, the record of finished pictures: a job that goes on skips them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

Identity = list[str | int]


def identity(picture: Path) -> Identity:
    """What tells a picture from others, and from itself once it is changed: its path, bytes, and time in ns.

    The path alone where it cannot be had; reading it says why.
    """
    path = picture.resolve()
    try:
        about = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), about.st_size, about.st_mtime_ns]


class Written(NamedTuple):
    """What was last written under a name. ours: by the settings of this job. done: or it may be half there."""

    picture: Identity
    ours: bool
    done: bool


class Record:
    """When and how it was predicted, then two lines for every picture.

    {"begun": name, "picture": its `identity`, "files": [...]} comes before its files get their names, {"done": name}
    after; what is begun and not done may be half there. {"broken": name, "why": ...} is a picture that could not be
    predicted. Each process writes a file of its own, and all of them are read.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], process: str = "") -> None:
        self.folder, self.process = folder, process
        self.path = folder / f"predictions{process}.jsonl"
        self.settings = json.loads(json.dumps(settings))
        self.written: dict[str, Written] = {}

    def by(self, **changed: Any) -> Record:
        """One in the same file, of other settings."""
        return Record(self.folder, {**self.settings, **changed}, self.process)

    def read(self) -> None:
        """Learn from all processes' records what was last begun and done under each name."""
        for settings, *entries in _jobs(self.folder):
            ours = settings["settings"] == self.settings
            for entry in entries:
                if "begun" in entry:
                    self.written[entry["begun"]] = Written(entry["picture"], ours, done=False)
                elif entry.get("done") in self.written:
                    self.written[entry["done"]] = self.written[entry["done"]]._replace(done=True)

    def is_begun(self, name: str, picture: Path) -> bool:
        """Whether what there is of this name is of this very picture, by the settings of this job."""
        return name in self.written and self.written[name][:2] == (identity(picture), True)

    def is_done(self, name: str, picture: Path) -> bool:
        """Whether it is whole, too."""
        return name in self.written and self.written[name] == (identity(picture), True, True)

    def other(self, name: str, picture: Path) -> str:
        """For a message: what there is of this name that this job did not begin; empty where that is not known."""
        if name not in self.written:
            return ""
        file, *before = self.written[name].picture
        now, *after = identity(picture)
        if file != now:
            return f", of {file}"
        return ", of this picture before it was changed" if before != after else ", by other settings"

    def open(self) -> None:
        """Begin to write. OSError where that cannot be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a", encoding="utf-8")
        self._write(
            {"time": time.time(), "settings": self.settings}, before="\n" if self.path.stat().st_size else ""
        )

    def close(self) -> None:
        self.file.close()

    def begin(self, name: str, picture: Identity, files: Iterable[Path]) -> None:
        """files: its results."""
        relative = [Path(os.path.relpath(file, self.folder)).as_posix() for file in files]
        self._write({"begun": name, "picture": picture, "files": relative})

    def finish(self, name: str) -> None:
        self._write({"done": name})

    def fail(self, name: str, why: str) -> None:
        self._write({"broken": name, "why": why})

    def _write(self, entry: dict[str, Any], before: str = "") -> None:
        self.file.write(before + json.dumps(entry) + "\n")
        self.file.flush()


def recorded_files(folder: Path) -> set[Path]:
    """The results, resolved, that records in a folder say were begun there."""
    place = folder.resolve()
    return {
        place / file for _, *entries in _jobs(folder) for entry in entries for file in entry.get("files", ())
    }


def _jobs(folder: Path) -> list[list[dict[str, Any]]]:
    """The entries of each job that wrote into a folder, the earliest first, and of each its settings first."""
    jobs: list[list[dict[str, Any]]] = []
    for path in sorted(folder.glob("predictions*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:  # half a line, where a job was killed
                    continue
                if "settings" in entry:
                    jobs.append([entry])
                elif jobs:
                    jobs[-1].append(entry)
    return sorted(jobs, key=lambda job: job[0].get("time", 0))
