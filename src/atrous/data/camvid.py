"""CamVid road scenes (Brostow et al. 2009), in the two layouts that are passed around.

camvid/train/0001TP_006690.png     camvid/trainannot/0001TP_006690.png     SegNet's: 11 classes, 11 = void
camvid/val/ ...                    camvid/valannot/ ...

CamVid/train/0001TP_006690.png     CamVid/train_labels/0001TP_006690_L.png colour masks, 31 classes and Void
CamVid/val/ ...                    CamVid/val_labels/ ...                  CamVid/class_dict.csv
"""

from __future__ import annotations

from pathlib import Path

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.class_files import read_colour_map
from atrous.data.labels import CAMVID, IGNORE_INDEX
from atrous.data.layout import pair_files
from atrous.data.splits import MissingPartError
from atrous.errors import InputError, choose

VOID = len(CAMVID)  # 11 in SegNet's files

SPLITS = ("train", "val", "test")


def find_camvid(path: str | Path) -> str | None:
    """What follows the split in the mask folders' names, "annot" or "_labels"; None for another layout."""
    root = Path(path)
    for ending in ("annot", "_labels"):
        if (root / "train").is_dir() and (root / f"train{ending}").is_dir():
            return ending
    return None


def open_camvid(
    path: str | Path, split: str = "train", *, strict: bool = True, transform: Transform | None = None
) -> SegmentationDataset:
    """Open "train", "val" or "test" of CamVid: 11 classes, or the classes of class_dict.csv; void 255.

    Raises InputError: no CamVid layout, an empty split, a picture without mask or a mask without picture
    (strict=False leaves those out).
    """
    root = Path(path)
    choose("split", split, SPLITS)
    ending = find_camvid(root)
    if ending is None:
        raise InputError(f"{root}: no CamVid layout here: folders train/ and trainannot/ are expected")
    images, masks = root / split, root / f"{split}{ending}"
    for folder in (images, masks):
        if not folder.is_dir():
            raise MissingPartError(f"{folder}: no such folder")
    pairs, unpaired = pair_files(images, masks)
    if unpaired and strict:
        raise InputError(
            f"{root}: {unpaired[0]}" + (f" ({len(unpaired)} such files)" if len(unpaired) > 1 else "")
        )
    if not pairs:
        raise InputError(f"{images}: no pictures")
    if ending == "annot":
        values = {VOID: IGNORE_INDEX}
        return SegmentationDataset(
            pairs, CAMVID, split, colours=CAMVID, values=values, transform=transform, unpaired=unpaired
        )
    labels = read_colour_map(root / "class_dict.csv")
    return SegmentationDataset(pairs, labels, split, colours=labels, transform=transform, unpaired=unpaired)
