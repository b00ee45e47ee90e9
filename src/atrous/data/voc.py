"""PASCAL VOC 2012 (Everingham et al. 2010), with the SBD masks of Hariharan et al. 2011 as train_aug.

VOC2012/JPEGImages/2007_000032.jpg
VOC2012/SegmentationClass/2007_000032.png      palette PNG, 255 = the rim around objects
VOC2012/SegmentationClassAug/...               SBD's masks, where they are kept apart
VOC2012/ImageSets/Segmentation/train.txt       names, one a line; val.txt, train_aug.txt, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atrous.data.base import Pair, SegmentationDataset, Transform
from atrous.data.class_files import label_file
from atrous.data.labels import VOC, Labels, class_names
from atrous.data.splits import read_list
from atrous.errors import InputError, choose

LISTS = {
    "train": ("train",),
    "val": ("val",),
    "trainval": ("trainval",),
    "test": ("test",),
    "train_aug": ("train_aug", "trainaug"),
}


def find_voc(path: str | Path) -> Path | None:
    """The VOC2012 folder at or below `path` (VOC2012/ or VOCdevkit/ may be given), or None."""
    for candidate in (Path(path), Path(path) / "VOC2012", Path(path) / "VOCdevkit" / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    return None


def is_voc(path: str | Path) -> bool:
    """Whether `path` is VOC itself, not the same folders with classes of their own, as CVAT exports them."""
    root = find_voc(path)
    return root is not None and label_file(root) is None


def open_voc(
    path: str | Path,
    split: str = "train",
    *,
    classes: Sequence[str] | None = None,
    strict: bool = True,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open "train", "val", "trainval" or "train_aug" of VOC 2012: 21 classes, void 255.

    classes: the names of those to keep beside the background, which the others become part of; None: all.
    train_aug takes its masks from SegmentationClassAug/ where that folder is, otherwise from
    SegmentationClass/. Raises InputError: no VOC layout, a list that is missing or names missing files
    (strict=False leaves those out), a picture of val that is also in the train list.
    """
    root = find_voc(path)
    if root is None:
        raise InputError(
            f"{path}: no VOC layout here: ImageSets/Segmentation/ with train.txt and val.txt is missing"
        )
    choose("split", split, LISTS)
    labels, values = (VOC, {}) if classes is None else part_of_voc(classes)
    names = _names(root, split)
    other = {"train": "val", "train_aug": "val"}.get(split, "train")
    if split in ("train", "train_aug", "val"):
        check_disjoint(root, split, names, other)

    masks = root / "SegmentationClass"
    if split == "train_aug" and (root / "SegmentationClassAug").is_dir():
        masks = root / "SegmentationClassAug"
    pairs: list[Pair] = []
    missing: list[str] = []
    for name in names:
        pair = Pair(name, root / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png")
        absent = [str(file) for file in (pair.image, pair.mask) if not file.is_file()]
        missing += [f"{file}: listed for {split} but missing" for file in absent]
        if not absent:
            pairs.append(pair)
    if missing and strict:
        raise InputError(missing[0] + (f" ({len(missing)} files in all)" if len(missing) > 1 else ""))
    if not pairs:
        raise InputError(f"{root}: the {split} list names no picture")
    return SegmentationDataset(
        pairs, labels, split, colours=VOC, values=values, transform=transform, unpaired=missing
    )


def part_of_voc(classes: Sequence[str]) -> tuple[Labels, dict[int, int]]:
    """The background and some classes in VOC's order and colours, and the new number of each old one."""
    for name in class_names(classes):
        choose("class of VOC", name, VOC.names)
    kept = [0, *(number for number in range(1, len(VOC)) if VOC.names[number] in classes)]
    labels = Labels(tuple(VOC.names[n] for n in kept), tuple(VOC.palette[n] for n in kept), VOC.ignore_index)
    return labels, {old: kept.index(old) if old in kept else 0 for old in range(len(VOC))}


def _list_file(root: Path, split: str) -> Path | None:
    folder = root / "ImageSets" / "Segmentation"
    return next((folder / f"{stem}.txt" for stem in LISTS[split] if (folder / f"{stem}.txt").is_file()), None)


def _names(root: Path, split: str) -> list[str]:
    file = _list_file(root, split)
    if file is None:
        expected = " or ".join(f"{stem}.txt" for stem in LISTS[split])
        raise InputError(f"{root / 'ImageSets' / 'Segmentation'}: no list {expected} for the split {split!r}")
    return [Path(name).name for name in read_list(file)]  # DeepLab v1's lists say /JPEGImages/name.jpg


def check_disjoint(root: Path, split: str, names: list[str], other: str) -> None:
    """InputError where a picture is in both lists; a missing second list is no matter."""
    if _list_file(root, other) is None:
        return
    if overlap := sorted(set(names) & set(_names(root, other))):
        shown = ", ".join(overlap[:5]) + (", ..." if len(overlap) > 5 else "")
        raise InputError(f"{root}: {len(overlap)} pictures are in both {split} and {other}: {shown}")
