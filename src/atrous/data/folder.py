"""A person's own pictures: one folder of images, one of masks, paired by name.

    photos/images/a.jpg          photos/train/images/a.jpg       photos/images/train/a.jpg
    photos/masks/a.png           photos/train/masks/a.png        photos/masks/train/a.png
    [train.txt, val.txt]         photos/val/images/b.jpg ...     photos/images/val/b.jpg ...

Without train/val folders and without lists, a tenth of the pictures becomes val, by file name and seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from atrous.data.base import Pair, SegmentationDataset, Transform, replace_values
from atrous.data.labels import IGNORE_INDEX, Labels
from atrous.data.layout import pair_files
from atrous.data.pictures import IMAGE_SUFFIXES, read_colour_map, read_lines, read_mask
from atrous.errors import InputError, choose

IMAGE_FOLDERS = ("images", "imgs", "image", "img", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "SegmentationClass")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
COLOUR_MAP_FILES = (
    *("labelmap.txt", "class_dict.csv", "labelmap.csv", "label_colors.txt"),
    *("labelmap.json", "labelmap.yaml", "labelmap.yml"),
)


def open_folder(
    path: str | Path,
    split: str = "train",
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    classes: Sequence[str] | str | Path | None = None,
    values: Mapping[int, int] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    strict: bool = True,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open `split` ("train", "val", or "test" where there is such a folder) of a folder of images and masks.

    images, masks: the two folders, where they are not called images/ and masks/; relative to `path`.
    classes: the class names, or a file: one name a line, or a colour map (see `read_colour_map`), which
        colour masks need. Otherwise classes.txt, labelmap.txt or another of `COLOUR_MAP_FILES` in `path`;
        otherwise all masks are read once, and the highest value gives the number of classes: class_0, ...
    values: {value in the files: class}, e.g. {255: 1} for masks drawn in black and white; 255 means void.
    val_fraction, seed: the share of pictures held out, at least one, where the folder itself has no split.
    strict: False leaves out pictures without mask and masks without picture (they are listed in `.unpaired`).

    A picture and its mask have the same path below their folders, up to the suffix; a mask may append one of
    `layout.MASK_SUFFIXES`. Raises InputError for a missing or empty folder and for files without partner.
    """
    root = Path(path)
    choose("split", split, SPLIT_FOLDERS)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if values is not None:
        values = _whole_numbers(values)
    found = {name: _split_folders(root, name, images, masks) for name in SPLIT_FOLDERS}
    flat = _flat_folders(root, images, masks)
    if found["train"] and found["val"]:
        folders = found[split]
        if folders is None:
            raise InputError(f"{root}: there is no {split} part: folders train/ and val/ are")
        pairs, unpaired = pair_files(*folders)
        scanned = [*found["train"], *found["val"]]
    elif found["train"] or found["val"]:
        present, missing = ("train", "val") if found["train"] else ("val", "train")
        raise InputError(
            f"{root}: there is a {present} folder but none for {missing}: add it, or keep no split at all"
        )
    elif flat is not None:
        pairs, unpaired = pair_files(*flat)
        scanned = [*flat]
    else:
        raise InputError(
            f"{root}: no pictures with masks found: expected images/ and masks/, train/images/ and train/masks/, "
            "or images/train/ and masks/train/; or name the two folders"
        )
    if unpaired and strict:
        shown = "; ".join(unpaired[:5]) + (f"; and {len(unpaired) - 5} more" if len(unpaired) > 5 else "")
        raise InputError(f"{root}: {shown}")

    labels, colours = _labels(root, classes)
    if labels is None:
        everything = [
            pair
            for folders in zip(scanned[::2], scanned[1::2], strict=True)
            for pair in pair_files(*folders)[0]
        ]
        labels = _scan_labels(root, everything, values, strict)
    if not (found["train"] and found["val"]):
        pairs = _choose_split(root, pairs, split, val_fraction, seed)
    if not pairs:
        raise InputError(f"{root}: the {split} part has no picture with a mask")
    return SegmentationDataset(
        pairs, labels, split, colours=colours, values=values, transform=transform, unpaired=unpaired
    )


def _whole_numbers(values: Mapping[Any, Any]) -> dict[int, int]:
    try:
        return {int(old): int(new) for old, new in values.items()}
    except (TypeError, ValueError):
        raise InputError(f"values {values}: expected whole numbers, like {{255: 1}}") from None


def _first_folder(parent: Path, names: Sequence[str]) -> Path | None:
    return next((parent / name for name in names if (parent / name).is_dir()), None)


def _flat_folders(
    root: Path, images: str | Path | None, masks: str | Path | None
) -> tuple[Path, Path] | None:
    image_folder = _first_folder(root, IMAGE_FOLDERS) if images is None else root / images
    mask_folder = _first_folder(root, MASK_FOLDERS) if masks is None else root / masks
    for given, folder in ((images, image_folder), (masks, mask_folder)):
        if given is not None and folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return None if image_folder is None or mask_folder is None else (image_folder, mask_folder)


def _split_folders(
    root: Path, split: str, images: str | Path | None, masks: str | Path | None
) -> tuple[Path, Path] | None:
    inside = _first_folder(root, SPLIT_FOLDERS[split])
    if inside is not None and (folders := _flat_folders(inside, images, masks)) is not None:
        return folders
    flat = _flat_folders(root, images, masks) if images is None or (root / images).is_dir() else None
    if flat is None:
        return None
    image_folder, mask_folder = (_first_folder(folder, SPLIT_FOLDERS[split]) for folder in flat)
    return None if image_folder is None or mask_folder is None else (image_folder, mask_folder)


def _choose_split(root: Path, pairs: list[Pair], split: str, val_fraction: float, seed: int) -> list[Pair]:
    lists = {name: root / f"{name}.txt" for name in SPLIT_FOLDERS}
    if lists["train"].is_file() and lists["val"].is_file():
        if overlap := sorted(read_list(lists["train"]).keys() & read_list(lists["val"]).keys()):
            raise InputError(f"{lists['val']}: {', '.join(overlap[:5])} also in {lists['train'].name}")
        by_name = {pair.name: pair for pair in pairs}
        names = read_list(lists[split])
        if missing := [name for name in names if name not in by_name]:
            raise InputError(f"{lists[split]}: no picture called {', '.join(missing[:5])}")
        return [by_name[name] for name in names]
    if split == "test":
        raise InputError(f"{root}: there is no test part: neither a folder test/ nor test.txt")
    if len(pairs) < 2:
        raise InputError(
            f"{root}: {len(pairs)} picture(s) with a mask: at least two are needed for train and val"
        )
    held_out = seeded_names([pair.name for pair in pairs], val_fraction, seed)
    return [pair for pair in pairs if (pair.name in held_out) == (split == "val")]


def read_list(path: Path) -> dict[str, None]:
    """The picture names in a list file, in order: the first word a line, without suffix, each once."""
    lines = [line.split()[0] for line in read_lines(path) if line.strip()]
    return dict.fromkeys(_without_suffix(name.lstrip("/")) for name in lines)


def _without_suffix(name: str) -> str:
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def seeded_names(names: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A share of the names, at least one and never all, by each name's hash: few change when files come."""
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction {fraction} must be between 0 and 1")
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(ordered[:count])


def _labels(root: Path, classes: Sequence[str] | str | Path | None) -> tuple[Labels | None, Labels | None]:
    """Class labels and the colour map, each None where nothing says them."""
    if classes is None:
        if (root / "classes.txt").is_file():
            classes = root / "classes.txt"
        else:
            classes = next((root / name for name in COLOUR_MAP_FILES if (root / name).is_file()), None)
    if classes is None:
        return None, None
    if not isinstance(classes, (str, Path)):
        return Labels.named(classes), None
    path = Path(classes) if Path(classes).is_file() else root / classes
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if path.suffix == ".txt" and not any(character in line for line in lines for character in ":,"):
        if not lines or len(set(lines)) < len(lines):
            raise InputError(f"{path}: expected one class name a line, each once")
        if not all(line.split()[0].isdigit() for line in lines):
            return Labels.named(lines), None
    colours = read_colour_map(path)
    return colours, colours


def _scan_labels(root: Path, pairs: Sequence[Pair], values: Mapping[int, int] | None, strict: bool) -> Labels:
    """As many classes as the highest value in the masks asks for."""

    def highest(pair: Pair) -> int | InputError:
        try:
            mask = read_mask(pair.mask)
        except InputError as error:
            return error
        mask = replace_values(mask, values) if values else mask
        known = mask[mask != IGNORE_INDEX]
        return int(known.max()) if known.size else -1

    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(highest, pairs))
    failures = [result for result in results if isinstance(result, InputError)]
    found = [result for result in results if isinstance(result, int)]
    if failures and (strict or not found):
        raise failures[0]
    if not found:
        raise InputError(f"{root}: no picture with a mask")
    if max(found) < 1:
        raise InputError(
            f"{root}: the masks hold no class but 0, and 255 is left out as void: for masks in black and white "
            "say that 255 is class 1 (values: {255: 1})"
        )
    return Labels.named([f"class_{number}" for number in range(max(found) + 1)])
