"""Tiny data sets in the layouts of the large ones, with masks of given values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 20)


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def stripes(values: Iterable[int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) uint8 with the values one after the other, along the rows."""
    row = np.array(list(values), np.uint8)
    return np.resize(row, size[0] * size[1]).reshape(size)


def write_mask(path: Path, values: Iterable[int], size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stripes(values, size)).save(path)
    return path


def draw_cityscapes(root: Path, values: Iterable[int], kind: str = "labelIds") -> Path:
    for number, (split, city) in enumerate((("train", "aachen"), ("train", "bochum"), ("val", "lindau"))):
        stem = f"{city}_000000_0000{number:02d}"
        write_picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", number)
        write_mask(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", values)
    return root


def draw_ade20k(root: Path, values: Iterable[int]) -> Path:
    for number, split in enumerate(("training", "training", "validation")):
        stem = f"ADE_{split.removesuffix('ing').removesuffix('idation')}_{number:08d}"
        write_picture(root / "images" / split / f"{stem}.jpg", number)
        write_mask(root / "annotations" / split / f"{stem}.png", values)
    return root


def draw_coco_stuff(root: Path, values: Iterable[int], ending: str = ".png", year: str = "2017") -> Path:
    second = "val" if year == "2017" else "test"
    for number, split in enumerate(("train", "train", second)):
        write_picture(root / "images" / f"{split}{year}" / f"{number:012d}.jpg", number)
        write_mask(root / "annotations" / f"{split}{year}" / f"{number:012d}{ending}", values)
    return root
