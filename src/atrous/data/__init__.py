"""Data sets: pictures with masks, read as they are and checked.

`open_dataset` finds out what a folder holds. Each data set has `labels` and delivers
`Sample(image, mask, name)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atrous.data.ade20k import find_ade20k, open_ade20k
from atrous.data.base import Pair, Sample, SegmentationDataset
from atrous.data.camvid import find_camvid, open_camvid
from atrous.data.cityscapes import find_cityscapes, open_cityscapes
from atrous.data.class_files import read_colour_map
from atrous.data.coco_stuff import find_coco_stuff, open_coco_stuff
from atrous.data.folder import open_folder
from atrous.data.labels import CAMVID, IGNORE_INDEX, VOC, Labels, voc_palette
from atrous.data.pictures import read_image, read_mask
from atrous.data.scenes import SCENES, Scenes, open_scenes
from atrous.data.voc import is_voc, open_voc
from atrous.errors import InputError, choose

if TYPE_CHECKING:
    from atrous.data.transforms import train_transform
else:  # a type checker that saw this function would believe in every name

    def __getattr__(name: str) -> object:
        """`train_transform`, which needs torchvision: importing that takes a second."""
        if name != "train_transform":
            raise AttributeError(f"module 'atrous.data' has no attribute {name!r}")
        from atrous.data.transforms import train_transform

        return train_transform


FORMATS: dict[str, Callable[..., SegmentationDataset]] = {
    "folder": open_folder,
    "voc": open_voc,
    "camvid": open_camvid,
    "cityscapes": open_cityscapes,
    "ade20k": open_ade20k,
    "coco_stuff": open_coco_stuff,
    "scenes": open_scenes,
}

LAYOUTS = (
    "understood are a folder (images/ and masks/, or train/images/ and so on, or images/train/ and so on), "
    "VOC (JPEGImages/, SegmentationClass/, ImageSets/Segmentation/), CamVid (train/, trainannot/, val/, "
    "valannot/), Cityscapes (leftImg8bit/, gtFine/), ADE20K (ADEChallengeData2016/), COCO-Stuff (images/train2017/, "
    'annotations/train2017/), and the word "scenes" for the drawn scenes'
)


def open_dataset(
    path: str | Path, split: str = "train", format: str = "auto", **options: Any
) -> SegmentationDataset:
    """Open one split of a data set.

    path: a folder, or the word "scenes" for the drawn scenes that need no files.
    split: "train" or "val"; "test" of VOC, CamVid, Cityscapes, scenes and folders; "trainval" and "train_aug" of
        VOC; "all" of folders.
    format: one of `FORMATS`, or "auto" to find out.
    options: those of the format's own function: `open_folder`, `open_voc`, `open_cityscapes`, ...

    Raises InputError: a missing or empty folder, one that fits no layout, an unknown option, and whatever the
    format's function raises.
    """
    if format != "auto":
        choose("data format", format, FORMATS)
    else:
        format = find_format(path)
    for option in options:
        choose(f"option of the data format {format!r}", option, options_of(format))
    return FORMATS[format](path, split, **options)


def options_of(format: str) -> list[str]:
    """The options of one of `FORMATS`."""
    return [name for name in inspect.signature(FORMATS[format]).parameters if name not in ("path", "split")]


def find_format(path: str | Path) -> str:
    """Which of `FORMATS` a path is: InputError where it is missing, empty or none of them."""
    if path == "scenes":
        return "scenes"
    root = Path(path)
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; {LAYOUTS}")
    if not any(root.iterdir()):
        raise InputError(f"{root}: the folder is empty; {LAYOUTS}")
    finders: dict[str, Callable[[Path], object]] = {
        "voc": is_voc,
        "camvid": find_camvid,
        "cityscapes": find_cityscapes,
        "ade20k": find_ade20k,
        "coco_stuff": find_coco_stuff,
    }
    return next((name for name, find in finders.items() if find(root)), "folder")


__all__ = [
    "CAMVID",
    "FORMATS",
    "IGNORE_INDEX",
    "SCENES",
    "VOC",
    "InputError",
    "Labels",
    "Pair",
    "Sample",
    "Scenes",
    "SegmentationDataset",
    "find_format",
    "open_dataset",
    "read_colour_map",
    "read_image",
    "read_mask",
    "train_transform",
    "voc_palette",
]
