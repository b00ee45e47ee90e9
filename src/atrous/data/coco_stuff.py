"""COCO-Stuff (Caesar et al. 2018): 171 classes of things and stuff, in the layouts that are passed around.

164k  images/train2017/000000000009.jpg   annotations/train2017/000000000009.png                raw ids 0-181
      images/val2017/ ...                 annotations/train2017/000000000009_labelTrainIds.png  0-170
                                          (or stuffthingmaps/train2017/ ...)
10k   images/COCO_train2014_000000000077.jpg   annotations/COCO_train2014_000000000077.mat      ids 1-182
      imageLists/train.txt, test.txt
      images/train2014/ ..., images/test2014/  annotations/train2014/ ..._labelTrainIds.png     1-171

Ids run to 182, with 11 that were dropped. Files may start at 0 or at 1, and with or without these gaps; the
values tell which: a dropped id shows that the gaps are elsewhere or gone, 255 or 0 what unlabelled pixels are.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.class_names import COCO_DROPPED, COCO_STUFF
from atrous.data.id_maps import IdMap, tell_id_map
from atrous.data.layout import files_by_name, match_masks
from atrous.data.splits import read_list
from atrous.errors import InputError, choose

SPLITS = ("train", "val")

_IDS = [number for number in range(1, 183) if number not in COCO_DROPPED]
ID_MAPS = {
    id_map.name: id_map
    for id_map in (
        IdMap.of("raw", "raw ids 0-181 with gaps, 255 = unlabelled", [n - 1 for n in _IDS], void=255),
        IdMap.of("train_ids", "train ids 0-170, 255 = unlabelled", range(171), void=255),
        IdMap.of("raw_from_one", "raw ids 1-182 with gaps, 0 = unlabelled", _IDS, void=0),
        IdMap.of("train_ids_from_one", "train ids 1-171, 0 = unlabelled", range(1, 172), void=0),
    )
}
TRAIN_IDS = "_labelTrainIds.png"


class Layout(NamedTuple):
    """Where a split is; `listed` names its pictures where the folder holds more."""

    images: Path
    masks: Path
    listed: Path | None = None
    small: bool = False  # the 10k


def find_coco_stuff(path: str | Path, split: str = "train") -> Layout | None:
    """The folders of a split of the 164k or the 10k, or None for another layout."""
    root = Path(path)
    for year, small in (("2017", False), ("2014", True)):
        part = ("test" if small and split == "val" else split) + year
        for masks in (root / "annotations" / part, root / "stuffthingmaps" / part):
            for images in (root / "images" / part, root / part):
                if masks.is_dir() and images.is_dir():
                    return Layout(images, masks, small=small)
    listed = root / "imageLists" / ("test.txt" if split == "val" else "train.txt")
    if listed.is_file() and (root / "images").is_dir() and (root / "annotations").is_dir():
        return Layout(root / "images", root / "annotations", listed, small=True)
    return None


def open_coco_stuff(
    path: str | Path,
    split: str = "train",
    *,
    encoding: str | None = None,
    strict: bool = True,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open "train" or "val" of COCO-Stuff (of the 10k, val is the 1000 pictures of its test): 171 classes, void 255.

    Masks are taken from *_labelTrainIds.png where every picture has one, otherwise from .png or .mat.
    encoding: one of `ID_MAPS`; told from the values where it is not given. Raises InputError: no such layout, an
    empty split, a picture without mask or a mask without picture (strict=False leaves those out), values that fit
    none of the numberings or do not tell which it is.
    """
    choose("split", split, SPLITS)
    layout = find_coco_stuff(path, split)
    if layout is None:
        raise InputError(
            f"{path}: no COCO-Stuff layout here for {split}: images/train2017/ and annotations/train2017/, or those "
            "of the 10k, are expected"
        )
    images = files_by_name(layout.images, ".jpg")
    kinds = {
        TRAIN_IDS: files_by_name(layout.masks, TRAIN_IDS),
        ".png": files_by_name(layout.masks, ".png", without=TRAIN_IDS),
        ".mat": files_by_name(layout.masks, ".mat"),
    }
    missing: list[str] = []
    if layout.listed is not None:
        names = read_list(layout.listed, images)
        missing = [f"{layout.listed}: no picture called {name}" for name in names if name not in images]
        if missing and strict:
            raise InputError(missing[0] + (f" ({len(missing)} such names)" if len(missing) > 1 else ""))
        images = {name: images[name] for name in names if name in images}
        kinds = {
            kind: {name: file for name, file in files.items() if name in images}
            for kind, files in kinds.items()
        }
    kind, pairs, unpaired = match_masks(images, kinds, strict, str(layout.masks))
    usual = _usual(kind, layout.small)
    candidates = [ID_MAPS[usual], *[id_map for name, id_map in ID_MAPS.items() if name != usual]]
    id_map, told = tell_id_map([pair.mask for pair in pairs], candidates, encoding)
    return SegmentationDataset(
        pairs,
        COCO_STUFF,
        split,
        values=id_map.values,
        closed=True,
        note=f"{id_map.what}; {told}",
        transform=transform,
        unpaired=[*missing, *unpaired],
    )


def _usual(kind: str, small: bool) -> str:
    """The numbering that a kind of file has where nobody changed it."""
    if kind == TRAIN_IDS:
        return "train_ids_from_one" if small else "train_ids"
    return "raw_from_one" if kind == ".mat" or small else "raw"
