"""What a report is about: a run folder or a checkpoint, its log, and the data that it is measured on."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atrous.checkpoint import BOX, locate
from atrous.errors import InputError
from atrous.repository import WEIGHTS, has_weights

OURS = (".safetensors", ".onnx", ".xml", ".pt2")


@dataclass
class Source:
    """`log`: rows of log.csv as {column: number}, without what was not measured; `iterations`: in all, 0 if unknown."""

    name: str
    checkpoint: str
    recipe: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, float]] = field(default_factory=list)
    iterations: int = 0

    @property
    def unfinished(self) -> str | None:
        """A word on a run that has not come to its end."""
        done = int(self.log[-1]["iteration"]) if self.log else 0
        if not self.iterations or done >= self.iterations:
            return None
        return f"{self.name} is not finished (iteration {done} of {self.iterations}): this is its best so far"


def is_source(word: str) -> bool:
    """Whether a word of the command line is a run folder or a checkpoint, and not a data set."""
    path = Path(word)
    return (
        word == BOX
        or path.suffix.lower() in OURS
        or any((path / name).is_file() for name in ("recipe.yaml", "log.csv", "best.safetensors", WEIGHTS))
    )


def open_source(word: str) -> Source:
    """InputError for a run that has nothing to show yet, and for a checkpoint that is not there."""
    import yaml

    path = Path(word)
    if path.is_dir() and not has_weights(path):
        folder, checkpoint = path, path / "best.safetensors"
        if not checkpoint.is_file():
            raise InputError(
                f"{path}: this run has no best.safetensors yet, it was never evaluated: "
                f"wait for its first evaluation, or go on with `atrous train --resume {path}`"
            )
    else:
        checkpoint = locate(word)
        if not checkpoint.is_file():
            raise InputError(f"{word}: no such checkpoint or run folder")
        folder = checkpoint.parent
    recipe: dict[str, Any] = {}
    if (folder / "recipe.yaml").is_file():
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) or {}
    return Source(
        word, str(checkpoint), recipe, read_log(folder / "log.csv"), int(recipe.get("iterations") or 0)
    )


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's log.csv, without what is no number; empty where there is none."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {key: _number(value) for key, value in row.items() if isinstance(key, str)}
            kept = {key: value for key, value in numbers.items() if value is not None}
            if "iteration" in kept:
                rows.append(kept)
    return rows


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
