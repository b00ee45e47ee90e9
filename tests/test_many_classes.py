"""More than 255 classes: masks of 16 bits, in which 255 is a class like any other and 65535 is void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atrous import train as training
from atrous.config import Recipe

CLASSES = 300
VOID = 65535


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of 20 x 30; each mask has classes from all over, 255 not among them, and a row of void."""
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        mask = (np.arange(600).reshape(20, 30) * 7 + number) % CLASSES
        mask[mask == 255] = 256
        mask[0] = VOID
        Image.fromarray(mask.astype(np.uint16)).save(data / "masks" / f"{number}.png")
        pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"{number}.png")
    (data / "classes.txt").write_text("".join(f"thing {number}\n" for number in range(CLASSES)))
    return data


def recipe(data: Path, out: Path) -> Recipe:
    return Recipe(
        str(data),
        model="deeplab_v3",
        backbone="mobilenet_v2",
        model_options={"width": 0.25},
        pretrained=None,
        crop_size=48,
        scale=(1.0, 1.0),
        rotation=10.0,
        batch_size=2,
        iterations=1,
        workers=0,
        device="cpu",
        precision="32-true",
        out=str(out),
    )


def test_what_is_padded_is_void_and_no_class(folder: Path, tmp_path: Path) -> None:
    run = training.set_up(recipe(folder, tmp_path / "run"))
    masks = torch.stack([run.train_data[index].mask for index in range(len(run.train_data))])
    assert masks.shape[1:] == (48, 48)
    known = masks != VOID
    assert not (masks == 255).any() and int(masks[known].max()) < CLASSES
    # 19 rows of 30 have a class; turned by up to 10 degrees, so within a few pixels
    assert all(abs(int(one.sum()) - 19 * 30) < 30 for one in known)
