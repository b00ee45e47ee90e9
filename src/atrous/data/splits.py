"""Which pictures of a folder are train, val and test: what folders and lists say, the rest drawn.

    photos/images/train/a.jpg    photos/train/images/a.jpg    photos/images/a.jpg
    photos/masks/train/a.png     photos/train/masks/a.png     photos/masks/a.png
                                                              photos/train.txt

A part that has folders or a list is that. Otherwise train is what is in no other part, val is drawn from train,
and there is no test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Sequence
from functools import cached_property
from pathlib import Path

from atrous.data.base import Pair
from atrous.data.layout import pair_files, plain_name
from atrous.data.pictures import IMAGE_SUFFIXES, read_lines
from atrous.errors import InputError

IMAGE_FOLDERS = ("images", "imgs", "image", "img", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "SegmentationClass")
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test",),
}
LIST_FOLDERS = (".", "ImageSets/Segmentation")  # the second is that of VOC and of CVAT

Folders = tuple[Path, Path]  # of pictures, of masks


class MissingPartError(InputError):
    """A data set has no such part."""


class Splits:
    """The parts of a folder.

    images, masks: the names of the two folders, where they are not among those that are known. val_fraction, seed:
    how val is drawn where nothing says it. Raises InputError where there are no pictures with masks, and for a folder
    of train or val that has only pictures, or only masks.
    """

    def __init__(
        self,
        root: Path,
        images: str | Path | None,
        masks: str | Path | None,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.root, self.val_fraction, self.seed = root, val_fraction, seed
        self.folders = {
            name: found for name in SPLITS if (found := _split_folders(root, name, images, masks)) is not None
        }
        self.flat = _flat_folders(root, images, masks)
        self.lists = {
            name: file
            for name in SPLITS
            if self.flat and name not in self.folders and (file := _list_file(root, name)) is not None
        }
        if not self.folders and self.flat is None:
            raise InputError(
                f"{root}: no pictures with masks found: expected images/ and masks/, train/images/ and train/masks/, "
                "or images/train/ and masks/train/; or name the two folders with --data_options.images and "
                "--data_options.masks"
            )

    def part(self, name: str) -> tuple[list[Pair], list[str]]:
        """The pictures of "train", "val", "test" or "all", and a line for each file without partner.

        InputError: there is no such part, or a picture of train is in val or test too.
        """
        if name == "all":
            return self.whole()
        if self.lists and "train" in self.given:
            self._check_disjoint()
        if name in self.given:
            pairs, lone = self._given(name)
        elif name == "test":
            raise MissingPartError(f"{self.root}: there is no test part: neither a folder test/ nor test.txt")
        else:
            pairs, lone = self._given("train") if "train" in self.given else self._rest()
        if name != "test" and "val" not in self.given:
            pairs = self._drawn(pairs, name)
        return pairs, lone

    def whole(self, without: str = "") -> tuple[list[Pair], list[str]]:
        """All pictures, each once, but those of the part `without`; those of split folders are named PART/NAME."""
        pairs: dict[Path, Pair] = {}
        lone: dict[str, None] = {}
        parts = {name: self._given(name) for name in self.given if name != without}
        if "train" not in self.folders and self.flat is not None:
            parts[""] = self._rest()
        for name, (own, lines) in parts.items():
            for pair in own:
                inside = f"{name}/{pair.name}" if name in self.folders else pair.name
                pairs.setdefault(pair.image, pair._replace(name=inside))
            lone.update(dict.fromkeys(lines))
        return list(pairs.values()), list(lone)

    @property
    def given(self) -> list[str]:
        """The parts that have folders or a list."""
        return [name for name in SPLITS if name in self.folders or name in self.lists]

    def outside(self) -> list[Pair]:
        """Pictures beside the folders of train that are in no part."""
        if "train" not in self.folders or self.flat is None:
            return []
        taken = {pair.image for name in self.given for pair in self._given(name, strict=False)[0]}
        return [pair for pair in self._flat_pairs[0] if pair.image not in taken]

    def _given(self, name: str, strict: bool = True) -> tuple[list[Pair], list[str]]:
        """A part that has folders or a list; `strict`: InputError where a listed picture is not there."""
        if name in self.folders:
            return pair_files(*self.folders[name])
        pairs, lone = self._flat_pairs
        by_name = {pair.name: pair for pair in pairs}
        names = read_list(self.lists[name], by_name)
        if (missing := [listed for listed in names if listed not in by_name]) and strict:
            raise InputError(f"{self.lists[name]}: no picture with a mask called {', '.join(missing[:5])}")
        return [by_name[listed] for listed in names if listed in by_name], lone

    def _rest(self) -> tuple[list[Pair], list[str]]:
        """What is in no part."""
        if self.flat is None:
            raise MissingPartError(f"{self.root}: there is no train part, only {' and '.join(self.given)}")
        pairs, lone = self._flat_pairs
        taken = {pair.image for name in self.given for pair in self._given(name)[0]}
        return [pair for pair in pairs if pair.image not in taken], lone

    @cached_property
    def _flat_pairs(self) -> tuple[list[Pair], list[str]]:
        assert self.flat is not None
        return pair_files(*self.flat)

    def _check_disjoint(self) -> None:
        train = {pair.image for pair in self._given("train", strict=False)[0]}
        for name in self.given:
            pairs, _ = self._given(name, strict=False)
            if name != "train" and (both := [pair.name for pair in pairs if pair.image in train]):
                where = self.lists.get(name) or self.folders[name][0]
                other = self.lists["train"].name if "train" in self.lists else "train"
                raise InputError(f"{where}: {', '.join(both[:5])} also in {other}")

    def _drawn(self, pairs: list[Pair], name: str) -> list[Pair]:
        if len(pairs) == 1:
            raise InputError(
                f"{self.root}: one picture with a mask: at least two are needed for train and val"
            )
        held_out = seeded_names([pair.name for pair in pairs], self.val_fraction, self.seed)
        return [pair for pair in pairs if (pair.name in held_out) == (name == "val")]


def _first_folder(parent: Path, names: Sequence[str]) -> Path | None:
    return next((parent / name for name in names if (parent / name).is_dir()), None)


def _both_folders(
    root: Path, images: str | Path | None, masks: str | Path | None
) -> tuple[Path | None, Path | None]:
    image_folder = _first_folder(root, IMAGE_FOLDERS) if images is None else root / str(images)
    mask_folder = _first_folder(root, MASK_FOLDERS) if masks is None else root / str(masks)
    for given, folder in ((images, image_folder), (masks, mask_folder)):
        if given is not None and folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return image_folder, mask_folder


def _flat_folders(root: Path, images: str | Path | None, masks: str | Path | None) -> Folders | None:
    image_folder, mask_folder = _both_folders(root, images, masks)
    return None if image_folder is None or mask_folder is None else (image_folder, mask_folder)


def _split_folders(
    root: Path, split: str, images: str | Path | None, masks: str | Path | None
) -> Folders | None:
    ways: list[tuple[Path | None, Path | None]] = []
    if (inside := _first_folder(root, SPLITS[split])) is not None:
        ways.append(_both_folders(inside, images, masks))
    flat = _flat_folders(root, images, masks) if images is None or (root / str(images)).is_dir() else None
    if flat is not None:
        ways.append((_first_folder(flat[0], SPLITS[split]), _first_folder(flat[1], SPLITS[split])))
    for image_folder, mask_folder in ways:
        if image_folder is not None and mask_folder is not None:
            return image_folder, mask_folder
    if split == "test":  # whose masks are often kept back
        return None
    for image_folder, mask_folder in ways:
        if image_folder is not None:
            raise InputError(f"{image_folder}: the pictures of {split} have no folder of masks")
        if mask_folder is not None:
            raise InputError(f"{mask_folder}: the masks of {split} have no folder of pictures")
    return None


def _list_file(root: Path, name: str) -> Path | None:
    files = [path for folder in LIST_FOLDERS for path in sorted((root / folder).glob("*.txt"))]
    return next((path for path in files if path.stem.lower() in SPLITS[name]), None)


def read_list(path: Path, known: Container[str] = ()) -> dict[str, None]:
    """The picture names in a list file, one a line, in order and without suffix, each once.

    A name is what is in quotes, or the longest beginning of the line that is `known`, or its first word.
    """
    lines = [line.strip() for line in read_lines(path)]
    return dict.fromkeys(_listed_name(line, known) for line in lines if line)


def _listed_name(line: str, known: Container[str]) -> str:
    if line.startswith('"'):  # CVAT's way for names with spaces
        return _without_suffix(line.split('"')[1])
    beginnings = [_without_suffix(line[: gap.start()]) for gap in re.finditer(r"\s+|$", line)]
    return next((name for name in reversed(beginnings) if name in known), beginnings[0])


def _without_suffix(name: str) -> str:
    name = plain_name(name.lstrip("/"))
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def seeded_names(names: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A share of the names, at least one and never all, by each name's hash: few change when files come."""
    if not (isinstance(fraction, (int, float)) and 0 < fraction < 1):
        raise InputError(f"val_fraction {fraction} must be between 0 and 1")
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(ordered[:count])
