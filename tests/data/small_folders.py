"""Folders of small pictures and masks, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data import SegmentationDataset
from atrous.errors import InputError


def picture(path: Path, size: tuple[int, int] = (5, 7), value: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (5, 7), top: int = 2) -> Path:
    """Class numbers 0..top, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) % (top + 1)
    Image.fromarray(values).save(path)
    return path


def make_folder(
    root: Path, names: list[str], images: str = "images", masks: str = "masks", top: int = 2
) -> Path:
    for name in names:
        picture(root / images / f"{name}.jpg")
        mask(root / masks / f"{name}.png", top=top)
    return root


def complaint(action: Callable[[], object], file: Path) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def names(dataset: SegmentationDataset) -> list[str]:
    return [pair.name for pair in dataset.pairs]


def make_voc(root: Path) -> Path:
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("2007_1", "2007_2", "2008_3", "2008_4"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        mask(root / "SegmentationClass" / f"{name}.png", top=20)
    (lists / "train.txt").write_text("2007_1\n2007_2\n")
    (lists / "val.txt").write_text("2008_3\n")
    return root
