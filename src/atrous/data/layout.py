"""Finding the files of a data set whose masks are named after the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from atrous.data.base import Pair
from atrous.errors import InputError


def files_by_name(folder: Path, endings: str | Sequence[str], without: str = "\n") -> dict[str, Path]:
    """{path below `folder` without its ending: file} of all files that end so, sorted; not those with `without`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    endings = (endings,) if isinstance(endings, str) else tuple(endings)
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(endings))
    found = {}
    for path in files:
        if path.name.startswith(".") or without in path.name:
            continue
        ending = next(ending for ending in endings if path.name.endswith(ending))
        found[path.relative_to(folder).as_posix().removesuffix(ending)] = path
    return found


def match_masks(
    images: Mapping[str, Path], kinds: Mapping[str, Mapping[str, Path]], strict: bool, where: str
) -> tuple[str, list[Pair], list[str]]:
    """Pair pictures with the first kind of masks that covers them all, or the one that covers most.

    Returns the kind, the pairs by name, and a line for each file without partner. InputError, which begins with
    `where`: no pictures, and, where `strict`, a file without partner.
    """
    kind = max(
        kinds, key=lambda kind: len(images.keys() & kinds[kind].keys())
    )  # max takes the first of equals
    masks = kinds[kind]
    lone = [f"picture {path} has no mask (*{kind})" for name, path in images.items() if name not in masks]
    lone += [f"mask {path} has no picture" for name, path in masks.items() if name not in images]
    if lone and strict:
        raise InputError(f"{where}: {lone[0]}" + (f" ({len(lone)} such files)" if len(lone) > 1 else ""))
    pairs = [Pair(name, path, masks[name]) for name, path in images.items() if name in masks]
    if not pairs:
        raise InputError(f"{where}: no picture with a mask")
    return kind, pairs, lone
