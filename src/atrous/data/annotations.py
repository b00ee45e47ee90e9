"""What the exports of annotation tools are read into: pictures with regions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atrous.data.shapes import Region
from atrous.errors import InputError

BACKGROUND = "background"
BACKGROUND_NAMES = (BACKGROUND, "_background_")  # the second is LabelMe's


@dataclass
class Picture:
    """One picture. `regions` decodes what was drawn, the lowest first; it raises ValueError for damage.

    file: the picture, or None where only `embedded`, a LabelMe file, holds it. size: (height, width) as the
    annotations have it, where they say it.
    """

    name: str
    file: Path | None
    regions: Callable[[], list[Region]]
    size: tuple[int, int] | None = None
    embedded: Path | None = None


@dataclass
class Annotations:
    """An export. ids: {class name: id}, in the order of the classes, for COCO. left_out: counts by kind.

    problems: one line each, naming the file.
    """

    tool: str
    labels: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    smaller_on_top: bool = False


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except (UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    except OSError as error:
        reason = str(error.strerror)
    raise InputError(f"{path}: cannot be read as JSON ({reason})")


def find_picture(name: str, folders: Sequence[Path]) -> Path | None:
    """The first file `name` in any of the folders; Windows' backslashes are understood."""
    relative = name.replace("\\", "/")
    try:
        return next((folder / relative for folder in folders if (folder / relative).is_file()), None)
    except OSError:  # a name too long to be one
        return None
