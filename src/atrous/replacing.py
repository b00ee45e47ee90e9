"""Files that are there whole or not at all: written beside their place under a hidden name, then renamed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name for the new content of `path`: renamed to `path` where the block ends, removed where it fails.

    It is in the same folder, this process's own, and ends as `path` does, since some writers go by that. The folder
    has to be there. What `path` holds is replaced in one moment, and stays where the block fails.
    """
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`path` with this content, in UTF-8."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def left_behind(path: Path) -> Iterator[Path]:
    """What processes that were killed while they wrote `path` have left."""
    return path.parent.glob(f".[0-9]*-{glob.escape(path.name)}")
