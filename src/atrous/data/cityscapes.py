"""Cityscapes (Cordts et al. 2016): street scenes of 50 cities, 2048x1024, 19 classes.

cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png        34 ids, as downloaded
cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png   19 classes, made from those
cityscapes/leftImg8bit/val/frankfurt/ ...
"""

from __future__ import annotations

from pathlib import Path

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.id_maps import IdMap
from atrous.data.labels import CITYSCAPES, IGNORE_INDEX
from atrous.data.layout import files_by_name, match_masks
from atrous.errors import InputError, choose

SPLITS = ("train", "val", "test")

# The ids of the 19 classes in the order of their train ids (cityscapesScripts, helpers/labels.py); the other ids
# from 0 to 33 are ignored. Licence plates have id -1, which no picture can hold: they are part of the car.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

LABEL_IDS = IdMap(
    "labelIds",
    "ids 0-33 of *_labelIds.png",
    {**dict.fromkeys(range(34), IGNORE_INDEX), **{number: place for place, number in enumerate(IDS)}},
    void=0,
)
TRAIN_IDS = IdMap.of("labelTrainIds", "train ids of *_labelTrainIds.png", range(19), void=255)
KINDS = {id_map.name: id_map for id_map in (TRAIN_IDS, LABEL_IDS)}


def find_cityscapes(path: str | Path) -> Path | None:
    """The folder with leftImg8bit/ and gtFine/, at `path` or in cityscapes/ below; None for another layout."""
    for candidate in (Path(path), Path(path) / "cityscapes"):
        if (candidate / "leftImg8bit").is_dir() and (candidate / "gtFine").is_dir():
            return candidate
    return None


def open_cityscapes(
    path: str | Path,
    split: str = "train",
    *,
    encoding: str | None = None,
    strict: bool = True,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open "train", "val" or "test" of Cityscapes: 19 classes, void 255. The masks of test are empty.

    encoding: "labelIds" or "labelTrainIds", the masks to read; by default labelTrainIds where every picture has
    such a mask. Raises InputError: no Cityscapes layout, an empty split, a picture without mask or a mask
    without picture (strict=False leaves those out).
    """
    root = find_cityscapes(path)
    if root is None:
        raise InputError(f"{path}: no Cityscapes layout here: folders leftImg8bit/ and gtFine/ are expected")
    choose("split", split, SPLITS)
    if encoding is not None:
        choose("encoding", encoding, KINDS)
    images = files_by_name(root / "leftImg8bit" / split, ("_leftImg8bit.png", "_leftImg8bit.jpg"))
    kinds = {
        f"_gtFine_{name}.png": files_by_name(root / "gtFine" / split, f"_gtFine_{name}.png")
        for name in KINDS
        if encoding in (None, name)
    }
    kind, pairs, unpaired = match_masks(images, kinds, strict, f"{root}: {split}")
    id_map = KINDS[kind.removeprefix("_gtFine_").removesuffix(".png")]
    return SegmentationDataset(
        pairs,
        CITYSCAPES,
        split,
        colours=None,
        values=id_map.values,
        closed=True,
        note=id_map.what,
        transform=transform,
        unpaired=unpaired,
    )
