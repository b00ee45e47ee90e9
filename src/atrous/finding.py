"""Which pictures are meant, and what their results are called: files, folders, globs and lists of files."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from atrous.data.layout import files_below
from atrous.data.pictures import IMAGE_SUFFIXES, read_lines
from atrous.errors import InputError
from atrous.record import recorded_files

LISTS = (".txt", ".lst")


def find_pictures(paths: Sequence[str | Path], leave_out: Path | None = None) -> dict[str, Path]:
    """Name -> file, in a fixed order, for pictures, folders (all that is below), globs, and lists of files (.txt).

    A name is the picture's place below the folder that was given, the fixed part of the glob, or the common folder of
    a list, without ending; so the results form the same tree. Where two names clash the ending joins them: a.jpg and
    a.png become a_jpg and a_png. leave_out: the folder of the results, whose pictures are not looked for; where it
    is, or holds, the folder of pictures itself, only what its record says are results is left out. Hidden files and
    folders (.name) are only taken where they are given themselves.

    Raises InputError where there is no such picture, and where two would have one name.
    """
    results = recorded_files(leave_out) if leave_out else set()
    place = leave_out.resolve() if leave_out else Path()
    inside = functools.cache(lambda root: root.resolve().is_relative_to(place))
    places: dict[str, tuple[Path, Path]] = {}  # each file once, however it is written: itself, and its place
    for path in map(Path, paths):
        for root, file in _pictures_of(path, leave_out):
            if results and inside(root) and file.resolve() in results:
                continue
            places.setdefault(os.path.abspath(file), (file, file.relative_to(root)))  # noqa: PTH100
    if not places:
        raise InputError(f"{leave_out}: the only pictures found are results that were written there")
    files = dict(places.values())
    plain = Counter(place.with_suffix("") for place in files.values())
    named: dict[str, Path] = {}
    for file, place in files.items():
        alone = plain[place.with_suffix("")] == 1
        name = (place.with_suffix("") if alone else place.with_name(place.name.replace(".", "_"))).as_posix()
        if name in named:
            raise InputError(
                f"{named[name]} and {file}: both would be written as {name}.png; predict them apart"
            )
        named[name] = file
    return named


def part_of(pictures: dict[str, Path], which: int, of: int) -> dict[str, Path]:
    """Every `of`-th picture from number `which` (0 to of - 1) on: each is in exactly one part."""
    return {name: pictures[name] for name in list(pictures)[which::of]}


def _pictures_of(path: Path, leave_out: Path | None) -> Iterator[tuple[Path, Path]]:
    """(the folder that names are relative to, picture)."""
    if path.is_dir():
        yield from _below(path, leave_out)
    elif path.exists() and path.suffix.lower() in LISTS:
        yield from _listed(path)
    elif path.exists():
        yield path.parent, path
    elif any(sign in str(path) for sign in "*?["):
        yield from _matching(path, leave_out)
    else:
        raise InputError(f"{path}: no such picture or folder")


def _below(folder: Path, leave_out: Path | None) -> Iterator[tuple[Path, Path]]:
    found = False
    for path in files_below(folder, leave_out):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found = True
            yield folder, path
    if not found:
        raise InputError(f"{folder}: no pictures in this folder (looked for {' '.join(IMAGE_SUFFIXES)})")


def _matching(pattern: Path, leave_out: Path | None) -> Iterator[tuple[Path, Path]]:
    above = [Path(*pattern.parts[: i + 1]) for i in range(len(pattern.parts))]
    first = next(i for i, path in enumerate(above) if not path.exists())  # a folder may be called a[1]
    fixed = Path(*pattern.parts[:first])
    found = [
        path
        for path in fixed.glob(str(Path(*pattern.parts[first:])))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") and part not in pattern.parts for part in path.parts)
    ]
    if leave_out and fixed.resolve() in leave_out.resolve().parents:
        found = [path for path in found if leave_out.resolve() not in path.resolve().parents]
    found.sort()
    if not found:
        raise InputError(f"{pattern}: no picture has such a name")
    yield from ((fixed, path) for path in found)


def _listed(path: Path) -> Iterator[tuple[Path, Path]]:
    """The files that a list names, one a line; those that are not absolute lie beside the list."""
    lines = [line.strip() for line in read_lines(path)]
    files = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not files:
        raise InputError(f"{path}: no picture is named in this list (one file a line is expected)")
    common = Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))  # noqa: PTH100
    yield from ((common, Path(os.path.abspath(file))) for file in files)  # noqa: PTH100
