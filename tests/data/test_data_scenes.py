"""The drawn scenes: the same everywhere, no scene in two splits, every class often enough, colour not enough."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
import torch

from atrous.data import SCENES, open_dataset
from atrous.data.scenes import draw_scene
from atrous.errors import InputError

# What this Pillow and numpy drew when the scenes were made: shapes are Pillow's, random numbers numpy's PCG64.
CLASSES_OF_THREE_SCENES = "436bb1bb1d1803785c0e1f1c0a93b0f4df3852ec4b4bdbd9f8ae4100130edc05"


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
            for index in range(10):
                seen.add(hashlib.sha256(draw_scene(index, split, seed)[0].tobytes()).hexdigest())
    assert len(seen) == 60


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


def test_every_class_is_there_often_enough() -> None:
    pixels, pictures = np.zeros(len(SCENES)), np.zeros(len(SCENES))
    for index in range(60):
        counts = np.bincount(draw_scene(index)[1].ravel(), minlength=len(SCENES))
        pixels, pictures = pixels + counts, pictures + (counts > 0)
    assert (pixels / pixels.sum()).min() > 0.01 and (pictures / 60).min() > 0.4


def test_thin_things_are_wide_enough() -> None:
    """Poles, the thinnest, are 3 pixels wide or more where nothing hides them."""
    widths = []
    for index in range(40):
        mask = draw_scene(index)[1] == 6
        for row in mask[mask.any(1)]:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
            widths += (edges[1::2] - edges[::2]).tolist()
    assert np.median(widths) >= 3


def test_colour_alone_does_not_tell_the_class() -> None:
    """The best that any classifier could do on colours in 12 steps a channel, told the val answers, stays under 0.5."""
    dataset = open_dataset("scenes", "val", length=60)
    samples = [dataset.arrays(index) for index in range(len(dataset))]
    image, truth = np.stack([image for image, _ in samples]) // 22, np.stack([mask for _, mask in samples])
    cell = (image.astype(np.int64) @ np.array([144, 12, 1])).ravel()
    table = np.bincount(cell * 9 + truth.ravel(), minlength=12**3 * 9).reshape(-1, 9)
    guess = table.argmax(1)[cell]
    confusion = np.bincount(truth.ravel().astype(np.int64) * 9 + guess, minlength=81).reshape(9, 9)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert (confusion.diagonal() / union).mean() < 0.5


def test_drawing_is_fast() -> None:
    started = time.process_time()
    for index in range(20):
        draw_scene(index)
    assert (time.process_time() - started) / 20 < 0.03  # about 0.003 on an idle core


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="at least 32x32"):
        open_dataset("scenes", size=(8, 8))
    with pytest.raises(InputError, match="did you mean 'train'"):
        open_dataset("scenes", "tran")
