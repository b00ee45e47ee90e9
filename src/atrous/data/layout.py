"""Finding the files of a data set whose masks are named after the pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from atrous.data.base import Pair
from atrous.data.pictures import IMAGE_SUFFIXES
from atrous.errors import InputError

# What tools append to a picture's name for its mask, in any case; tried only where no mask has the picture's own name.
_WORDS = "mask masks label labels labelids labeltrainids seg segmentation annotation gt l"
MASK_SUFFIXES = tuple(separator + word for word in _WORDS.split() for separator in "_-.")


def files_below(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """All files below a folder, by name; links are followed, what is hidden is not.

    A link to a folder that it lies in is no further folder. leave_out: a folder that is not entered.
    """
    away = leave_out.resolve() if leave_out else None

    def below(here: Path, above: Sequence[Path]) -> Iterator[Path]:
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise InputError(f"{here}: the folder cannot be read ({error.strerror})") from None
        for path in entries:
            if path.name.startswith("."):
                continue
            if not path.is_dir():
                yield path
            elif (real := path.resolve()) != away and not any(outer.is_relative_to(real) for outer in above):
                yield from below(path, [*above, real])

    yield from below(folder, [folder.resolve()])


def plain_name(name: str) -> str:
    """A file's name with composed accents: disks and archives of macOS keep them apart from their letters."""
    return unicodedata.normalize("NFC", name)


def files_by_name(folder: Path, endings: str | Sequence[str], without: str = "\n") -> dict[str, Path]:
    """{path below `folder` without its ending: file} of all files that end so, sorted; not those with `without`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    endings = (endings,) if isinstance(endings, str) else tuple(endings)
    found = {}
    for path in files_below(folder):
        ending = next((ending for ending in endings if path.name.endswith(ending)), None)
        if ending is not None and without not in path.name:
            found[plain_name(path.relative_to(folder).as_posix().removesuffix(ending))] = path
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


def pair_files(images: Path, masks: Path) -> tuple[list[Pair], list[str]]:
    """Pair the files of two folders by name, sub-folders included.

    Returns the pairs, by name, and one line for each file without partner.
    """
    image_files, mask_files = _by_name(images), _by_name(masks)
    found = {name: mask_files.pop(name) for name in image_files if name in mask_files}
    appended: dict[str, str] = {}
    for suffix in MASK_SUFFIXES:
        for name in mask_files:
            if name.lower().endswith(suffix):
                appended.setdefault(name[: -len(suffix)], name)
    for name in image_files.keys() - found.keys():
        whole = name + image_files[name].suffix  # a.jpg.png
        own = whole if whole in mask_files else appended.get(name)
        if own is not None:
            found[name] = mask_files.pop(own)
    pairs = [Pair(name, image, found[name]) for name, image in image_files.items() if name in found]
    lone = [f"picture {path} has no mask" for name, path in image_files.items() if name not in found]
    lone += [f"mask {path} has no picture" for path in mask_files.values()]
    return pairs, lone


def lone_files(lines: Sequence[str]) -> str:
    """The first lone picture and the first lone mask of `pair_files`' lines, and how many more there are."""
    first = {line.split()[0]: line for line in reversed(lines)}  # "picture ..." and "mask ..."
    more = len(lines) - len(first)
    return "; ".join(
        [first[kind] for kind in sorted(first, reverse=True)] + ([f"and {more} more"] if more else [])
    )


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        name = plain_name(path.relative_to(folder).with_suffix("").as_posix())
        if name in files:
            raise InputError(f"{path}: {files[name].name} has the same name: which of the two is meant?")
        files[name] = path
    return files
