"""What a visitor of the page asks for and has."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atrous.app.work import Scores, Upload, Wish

OWN = "the checkpoint's own"
NO_MODEL = "none"
HANDED_OVER = 60  # seconds after which gradio surely has its copy of a file

# Largest values of the sliders; the papers search bi_w 3..6, bi_xy_std 30..100, bi_rgb_std 3..10 (v2 sec. 4.1)
RANGES: dict[str, tuple[float, float, float, str]] = {
    "iter_max": (0, 20, 1, "mean-field iterations"),
    "bi_w": (0, 20, 0.5, "appearance: weight"),
    "bi_xy_std": (1, 160, 1, "appearance: reach, pixels"),
    "bi_rgb_std": (1, 40, 0.5, "appearance: reach, colour"),
    "pos_w": (0, 20, 0.5, "smoothness: weight"),
    "pos_xy_std": (0.5, 20, 0.5, "smoothness: reach, pixels"),
}


@dataclass(frozen=True)
class Work:
    """What a visitor has: a picture, and what one or two models say of it."""

    upload: Upload
    scores: tuple[Scores, ...]


def passing_folder(home: Path) -> Path:
    """A new folder for files that are handed over; those that have been are removed: gradio keeps copies of its own."""
    for old in home.iterdir():
        with suppress(OSError):  # another visitor's turn removes it
            if time.time() - old.stat().st_mtime > HANDED_OVER:
                shutil.rmtree(old)
    return Path(tempfile.mkdtemp(dir=home))


def file_of(home: Path, payload: Any) -> str | None:
    """An upload under the name that it has with the visitor: gradio changes some letters."""
    if payload is None or payload.path is None:
        return None
    path = Path(payload.path)
    if not payload.orig_name or payload.orig_name == path.name:
        return str(path)
    named = passing_folder(home) / Path(payload.orig_name.replace("\\", "/")).name
    try:
        named.symlink_to(path)
    except OSError:  # a name that cannot be one here
        return str(path)
    return str(named)


def wishes(
    model: str, other: str, protocol: str, scales: Sequence[str], flip: str
) -> tuple[tuple[str, ...], Wish]:
    """The models that are asked for, and how they are to look."""
    names = (model,) if other == NO_MODEL else (model, other)
    return names, Wish(
        None if protocol == OWN else protocol,
        tuple(float(scale) for scale in scales or ()) or None,
        {"yes": True, "no": False}.get(flip),
    )


def crf_of(use: bool, *values: float) -> dict[str, float] | None:
    return dict(zip(RANGES, map(float, values), strict=True)) if use else None
