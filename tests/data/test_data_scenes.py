"""The drawn scenes: the same everywhere, no scene in two splits, every class often enough, colour not enough."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from atrous.data import SCENES, open_dataset
from atrous.data.scenes import draw_scene
from atrous.errors import InputError

# What this Pillow and numpy drew when the scenes were made: shapes are Pillow's, random numbers numpy's PCG64.
CLASSES_OF_THREE_SCENES = "5893aa4007d5844b9c478a5b8ff3c6b6d865988a0337d373a9c4f405713d6f6c"


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """50 pictures (50, 96, 128, 3) and their masks (50, 96, 128)."""
    pairs = [draw_scene(index, "val") for index in range(50)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def test_the_same_scene_every_time() -> None:
    first, second = draw_scene(3), draw_scene(3)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    sample = open_dataset("scenes", length=5)[3]
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), first[0])
    assert np.array_equal(sample.mask.numpy(), first[1]) and sample.name == "scene_train_00003"


def test_classes_are_those_drawn_elsewhere() -> None:
    classes = b"".join(
        draw_scene(index, split)[1].tobytes() for index, split in ((0, "train"), (1, "train"), (0, "val"))
    )
    assert hashlib.sha256(classes).hexdigest() == CLASSES_OF_THREE_SCENES


def test_splits_and_seeds_share_no_scene() -> None:
    seen = set()
    for split in ("train", "val", "test"):
        for seed in (0, 1):
            for index in range(4):
                seen.add(hashlib.sha256(draw_scene(index, split, seed)[0].tobytes()).hexdigest())
    assert len(seen) == 24


@pytest.mark.parametrize("size", [(96, 128), (33, 71), (240, 200)])
def test_any_size(size: tuple[int, int]) -> None:
    dataset = open_dataset("scenes", "val", size=size, length=2)
    image, mask, _ = dataset[1]
    assert image.shape == (3, *size) and mask.shape == size
    assert image.dtype == torch.uint8 and mask.dtype == torch.uint8 and int(mask.max()) < len(SCENES)


def test_a_larger_scene_is_the_same_scene() -> None:
    small, large = draw_scene(4, size=(96, 128))[1], draw_scene(4, size=(192, 256))[1]
    assert (large[::2, ::2] == small).mean() > 0.97


def test_length_and_end() -> None:
    dataset = open_dataset("scenes", length=3)
    assert len(dataset) == 3 and len(list(dataset)) == 3
    with pytest.raises(IndexError):
        dataset[3]
    assert len(open_dataset("scenes", "train")) == 1000 and len(open_dataset("scenes", "val")) == 200


def test_every_class_is_there_often_enough(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    counts = np.stack([np.bincount(mask.ravel(), minlength=len(SCENES)) for mask in scenes[1]])
    assert (counts.sum(0) / counts.sum()).min() > 0.02
    assert (counts > 0).mean(0).min() > 0.8


def test_thin_things_are_wide_enough(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    """Poles, the thinnest, are mostly 3 pixels wide or more, though things stand before them."""
    widths: list[int] = []
    for row in (scenes[1] == SCENES.names.index("pole")).reshape(-1, 128):
        edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0))
        widths += (edges[1::2] - edges[::2]).tolist()
    assert (np.array(widths) >= 3).mean() > 0.85


def test_colour_alone_does_not_tell_the_class(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    """The best guess for each of 12 x 12 x 12 colours, even knowing the answers, stays under mIoU 0.5."""
    classes = len(SCENES)
    colour = ((scenes[0] // 22).astype(np.int64) @ np.array([144, 12, 1])).ravel()
    truth = scenes[1].ravel().astype(np.int64)
    votes = np.bincount(colour * classes + truth, minlength=12**3 * classes).reshape(-1, classes)
    guess = votes.argmax(1)[colour]
    confusion = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
    hits = confusion.diagonal()
    assert 0.25 < (hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean() < 0.5


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="at least 32x32"):
        open_dataset("scenes", size=(8, 8))
    with pytest.raises(InputError, match="did you mean 'train'"):
        open_dataset("scenes", "tran")
