"""ADE20K's scene parsing benchmark, SceneParse150 (Zhou et al. 2017): 150 classes, 20210 and 2000 pictures.

ADEChallengeData2016/images/training/ADE_train_00000001.jpg
ADEChallengeData2016/annotations/training/ADE_train_00000001.png   1-150 the classes, 0 = other
ADEChallengeData2016/images/validation/ ...
"""

from __future__ import annotations

from pathlib import Path

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.class_names import ADE20K
from atrous.data.id_maps import IdMap, tell_id_map
from atrous.data.layout import files_by_name, match_masks
from atrous.errors import choose

SPLITS = {"train": "training", "val": "validation"}

ID_MAPS = (
    IdMap.of("ids", "ids 1-150, 0 = other", range(1, 151), void=0),
    IdMap.of("shifted", "ids already shifted to 0-149, 255 = other", range(150), void=255),
)


def find_ade20k(path: str | Path) -> Path | None:
    """The benchmark's folder at or below `path`, or None.

    Other people's folders have images/training/ too: this one is known by its name, by objectInfo150.txt, or
    by pictures called ADE_train_...
    """
    for root in (Path(path), Path(path) / "ADEChallengeData2016"):
        images = root / "images" / "training"
        if not (images.is_dir() and (root / "annotations" / "training").is_dir()):
            continue
        named = root.resolve().name == "ADEChallengeData2016" or (root / "objectInfo150.txt").is_file()
        if named or next(images.glob("ADE_*.jpg"), None) is not None:
            return root
    return None


def open_ade20k(
    path: str | Path,
    split: str = "train",
    *,
    encoding: str | None = None,
    strict: bool = True,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open "train" or "val" of SceneParse150: 150 classes, "other" is void 255.

    encoding: "ids" as published, or "shifted" where a tool took one off already; told from the values where it is
    not given. Raises InputError: no such layout, an empty split, a picture without mask or a mask without
    picture (strict=False leaves those out), values that fit neither numbering.
    """
    root = find_ade20k(path) or Path(path)
    choose("split", split, SPLITS)
    part = SPLITS[split]
    images = files_by_name(root / "images" / part, (".jpg", ".png"))
    masks = files_by_name(root / "annotations" / part, ".png")
    _, pairs, unpaired = match_masks(images, {".png": masks}, strict, f"{root}: {part}")
    id_map, told = tell_id_map([pair.mask for pair in pairs], ID_MAPS, encoding)
    return SegmentationDataset(
        pairs,
        ADE20K,
        split,
        values=id_map.values,
        closed=True,
        note=f"{id_map.what}; {told}",
        transform=transform,
        unpaired=unpaired,
    )
