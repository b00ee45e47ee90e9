"""A person's own pictures: one folder of images, one of masks, paired by name; see `splits.py` for train and val."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from atrous.data.base import Pair, SegmentationDataset, Transform, highest_class, replace_values
from atrous.data.class_files import label_file, numbers_with_void, read_classes
from atrous.data.id_maps import black_and_white, doubt_of_numbers
from atrous.data.labels import IGNORE_INDEX_16, Labels, class_names
from atrous.data.layout import lone_files
from atrous.data.pictures import read_mask
from atrous.data.splits import SPLITS, Splits
from atrous.errors import InputError, choose


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
    """Open a part of a folder of images and masks: "train", "val", "test" where there is one, or "all" pictures.

    images, masks: the two folders, where they are not called images/ and masks/; relative to `path`.
    classes: the class names, or a file: one name a line, or a colour map (see `read_colour_map`), which
        colour masks need. Otherwise the first of `class_files.CLASS_FILES` in `path`;
        otherwise all masks are read once, and the highest value gives the number of classes: class_0, ...
    values: {value in the files: class}, e.g. {255: 1} for masks drawn in black and white; 255 means void.
    val_fraction, seed: the share of pictures held out, at least one, where the folder itself has no val.
    strict: False leaves out pictures without mask and masks without picture (they are listed in `.unpaired`).

    A picture and its mask have the same path below their folders, up to the suffix; a mask may append one of
    `layout.MASK_SUFFIXES`, or its suffix to the picture's (a.jpg.png). Raises InputError for a missing or
    empty folder and for files without partner.
    """
    root = Path(path)
    choose("split", split, [*SPLITS, "all"])
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if values is not None:
        values = _whole_numbers(values)
    splits = Splits(root, images, masks, val_fraction, seed)
    pairs, unpaired = splits.part(split)
    if unpaired and strict:
        raise InputError(f"{root}: {lone_files(unpaired)} (--data_options.strict false leaves such out)")
    if not pairs:
        why = (
            f" ({lone_files(unpaired)}): a mask has its picture's name, or that and _mask" if unpaired else ""
        )
        raise InputError(f"{root}: the {split} part has no picture with a mask{why}")
    labels, colours, with_void = _labels(root, classes)
    doubt = ""
    if labels is None:
        labels, doubt = _scan_labels(root, splits.whole(without="test")[0] or pairs, values, strict)
    dataset = SegmentationDataset(
        pairs,
        labels,
        split,
        colours=colours,
        values=values,
        doubt=doubt,
        transform=transform,
        unpaired=unpaired,
    )
    if with_void and not values and "colours" not in dataset.kinds_of_masks():
        table = ", ".join(f"{number}: {new}" for number, new in with_void.items())
        dataset.doubt = (
            "the file of the classes has void before a class, and is counted without it; where the masks count it too, "
            f"say --data_options.values '{{{table}}}'"
        )
    return dataset


def _whole_numbers(values: Any) -> dict[int, int]:
    try:
        numbers = {int(str(old)): int(str(new)) for old, new in values.items()}
    except (AttributeError, ValueError):
        numbers = {-1: -1}
    if not all(0 <= number <= 65535 for pair in numbers.items() for number in pair):
        raise InputError(f"values {values}: expected whole numbers from 0 to 65535, like {{255: 1}}")
    return numbers


def _labels(
    root: Path, classes: Sequence[str] | str | Path | None
) -> tuple[Labels | None, Labels | None, dict[int, int]]:
    """Class labels and the colour map, each None where nothing says them, and `numbers_with_void` of the latter."""
    if classes is None:
        classes = label_file(root)
    if classes is None:
        return None, None, {}
    if not isinstance(classes, (str, Path)):
        return Labels.named(class_names(classes)), None, {}
    path = Path(classes) if Path(classes).is_file() else root / classes
    labels, colours = read_classes(path)
    return labels, colours, {} if colours is None else numbers_with_void(path)


def _scan_labels(
    root: Path, pairs: Sequence[Pair], values: Mapping[int, int] | None, strict: bool
) -> tuple[Labels, str]:
    """As many classes as the highest value in the masks asks for, and what makes that doubtful."""

    def histogram(pair: Pair) -> np.ndarray | InputError:
        try:
            mask = read_mask(pair.mask)
        except InputError as error:
            return error
        return np.bincount((replace_values(mask, values) if values else mask).ravel())

    counts = np.zeros(IGNORE_INDEX_16 + 1, np.int64)
    failures = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for found in pool.map(histogram, pairs):
            if isinstance(found, InputError):
                failures.append(found)
            else:
                counts[: len(found)] += found
    if failures and (strict or not counts.any()):
        raise failures[0]
    highest = highest_class(np.flatnonzero(counts))
    if highest < 1:
        raise InputError(f"{root}: {black_and_white(pair.mask for pair in pairs)}")
    return Labels.named([f"class_{number}" for number in range(highest + 1)]), doubt_of_numbers(counts)
