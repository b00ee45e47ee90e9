"""The folder that the pages' commands find: drawn pictures, and small models that nobody trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import atrous
from atrous.checkpoint import Metadata
from atrous.data import Labels

SIZE = (48, 64)
CLASSES = ("background", "cat")


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8, and the mask (H, W) of its bright disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = (y - rng.integers(15, 33)) ** 2 + (x - rng.integers(20, 44)) ** 2 < 150
    pixels = np.where(inside[..., None], (200, 160, 90), (60, 90, 120)) + rng.integers(-20, 20, (*SIZE, 3))
    return pixels.clip(0, 255).astype(np.uint8), inside.astype(np.uint8)


def make(folder: Path) -> None:
    """photo.jpg, photos/, my_folder/ (images, masks), black_white/ and from_one/ (the same with other mask values),
    runs/mine/best.safetensors, best.safetensors, deeplab.pth, ..."""
    for name in ("photos", "my_folder/images", "my_folder/masks"):
        (folder / name).mkdir(parents=True)
    for i in range(8):
        pixels, mask = picture(i)
        Image.fromarray(pixels).save(folder / f"my_folder/images/{i}.jpg")
        Image.fromarray(mask).save(folder / f"my_folder/masks/{i}.png")
    (folder / "my_folder" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for name, values in (("black_white", (0, 255)), ("from_one", (1, 2))):
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        for i in range(4):
            pixels, mask = picture(i)
            Image.fromarray(pixels).save(folder / name / f"images/{i}.jpg")
            Image.fromarray(np.array(values, np.uint8)[mask]).save(folder / name / f"masks/{i}.png")
    for i in range(2):
        Image.fromarray(picture(50 + i)[0]).save(folder / f"photos/{i}.jpg")
    pixels, mask = picture(99)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    Image.fromarray(mask).save(folder / "labels.png")
    Image.fromarray(255 * mask).save(folder / "mask_255.png")
    np.save(folder / "scores.npy", scores(mask))

    torch.manual_seed(0)
    model = atrous.create_model("deeplab_v3plus", "mobilenet_v2", num_classes=2, width=0.25)
    (folder / "runs" / "mine").mkdir(parents=True)
    for name in ("runs/mine/best.safetensors", "runs/mine/last.safetensors", "best.safetensors"):
        atrous.save(model, folder / name, Metadata(Labels.named(list(CLASSES)), scores={"miou": 0.5}))
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    network = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
    torch.save(network.state_dict(), folder / "deeplab.pth")


def scores(mask: np.ndarray) -> np.ndarray:
    """(2, H, W) float32 probabilities that believe the mask by four fifths."""
    cat = np.where(mask, 0.8, 0.2).astype(np.float32)
    return np.stack([1 - cat, cat])


def names() -> dict[str, Any]:
    """What the pages' Python finds: arrays of one picture."""
    image, mask = picture(99)
    height, width = SIZE
    return {
        "image": image,
        "labels": mask,
        "probabilities": scores(mask),
        "height": height,
        "width": width,
        "classes": 2,
        "np": np,
        "torch": torch,
    }
