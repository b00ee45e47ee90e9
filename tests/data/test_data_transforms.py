"""Augmentation: image and mask stay aligned, padding is void, and one step equals the three it replaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from atrous.data import train_transform
from atrous.data.transforms import FILL, RandomScaleCrop, resized_window


def striped(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Coarse blocks of five greys, 10, 60, ... 210, and a mask that numbers them."""
    rows, columns = np.mgrid[:height, :width]
    classes = ((rows // 16) + 2 * (columns // 16)) % 5
    pixels = np.repeat((10 + 50 * classes)[..., None], 3, axis=2).astype(np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    return image, tv_tensors.Mask(torch.from_numpy(classes.astype(np.uint8)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": (1.0, 1.0)},
        {"rotation": 30.0},
        {"base_size": 200},
        {"scale": (0.5, 0.6), "rotation": 5.0},
    ],
    ids=str,
)
def test_image_and_mask_stay_aligned(options: dict) -> None:
    transform = train_transform((65, 49), **options)
    agreeing = valid = void = 0
    for _ in range(20):
        image, mask = transform(*striped(90, 77))
        assert (
            image.shape == (3, 65, 49) and image.dtype == torch.uint8 and isinstance(image, tv_tensors.Image)
        )
        assert mask.shape == (65, 49) and mask.dtype == torch.uint8 and isinstance(mask, tv_tensors.Mask)
        assert set(mask.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
        inside = mask != 255
        drawn = ((image[0].float() - 10) / 50).round()
        agreeing += int((drawn == mask)[inside].sum())
        valid += int(inside.sum())
        void += int((~inside).sum())
    assert agreeing / valid > 0.85  # all but the soft borders of the blocks
    if options.get("scale") == (1.0, 1.0):
        assert agreeing == valid and void == 0


def test_padding_is_the_mean_and_void() -> None:
    image, mask = striped(20, 30)
    for _ in range(10):
        out, classes = train_transform(64, scale=(1.0, 1.0), flip=False)(image, mask)
        void = classes == 255
        assert int((~void).sum()) == 20 * 30  # nothing of a picture that fits is lost
        assert (out[:, void] == torch.tensor(FILL, dtype=torch.uint8)[:, None]).all()
        rows, columns = torch.where(~void)
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(out[:, top : top + 20, left : left + 30], image)
    other, classes = train_transform(64, scale=(1.0, 1.0), fill=(1, 2, 3), ignore_index=99)(image, mask)
    assert other[:, classes == 99].T.unique(dim=0).tolist() == [[1, 2, 3]]


def test_crops_and_pads_lie_anywhere() -> None:
    places = set()
    for _ in range(200):
        _, mask = train_transform((8, 8), scale=(1.0, 1.0), flip=False)(*striped(6, 10))
        rows = torch.where((mask != 255).any(1))[0]
        places.add(int(rows.min()))
    assert places == {0, 1, 2}


def test_flip() -> None:
    image, mask = striped(32, 40)
    seen = set()
    for _ in range(20):
        out, classes = train_transform((32, 40), scale=(1.0, 1.0))(image, mask)
        flipped = torch.equal(out, image.flip(-1))
        assert flipped or torch.equal(out, image)
        assert torch.equal(classes, mask.flip(-1) if flipped else mask)
        seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize("scaled", [(37, 53), (151, 203), (60, 90), (61, 91)])
def test_a_window_equals_resizing_everything_and_cropping(scaled: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    classes = rng.integers(0, 7, (60, 90), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(pixels).resize(scaled[::-1], Image.Resampling.BILINEAR)).astype(int)
    whole_classes = resized_window(classes, scaled, (0, 0), scaled, 255)
    pillow = np.asarray(Image.fromarray(classes).resize(scaled[::-1], Image.Resampling.NEAREST))
    assert (whole_classes == pillow).mean() > 0.95  # where a centre falls between two pixels, Pillow rounds
    for corner in ((0, 0), (5, 11), (-3, 7), (20, -9), (30, 40)):
        part = resized_window(pixels, scaled, corner, (33, 41), FILL).astype(int)
        part_classes = resized_window(classes, scaled, corner, (33, 41), 255)
        top, left = max(0, corner[0]), max(0, corner[1])
        expected = whole[top : corner[0] + 33, left : corner[1] + 41]
        y, x = top - corner[0], left - corner[1]
        inner = (slice(y, y + expected.shape[0]), slice(x, x + expected.shape[1]))
        assert np.abs(part[inner] - expected).max() <= 1
        same = whole_classes[top : corner[0] + 33, left : corner[1] + 41]
        assert np.array_equal(part_classes[inner], same)
        assert int((part_classes == 255).sum()) == 33 * 41 - same.size


def test_resizing_is_torchvisions_antialiased_bilinear() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    ours = resized_window(pixels, (25, 31), (0, 0), (25, 31), FILL).astype(int)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    theirs = functional.resize(image, [25, 31], antialias=True).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_rotation_turns_image_and_mask_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn by the general code is the exact quarter turn, and 10 degrees leave no void in the middle."""
    image, mask = striped(40, 40)
    monkeypatch.setattr("atrous.data.transforms._uniform", lambda low, high: 90.0 if high > 2 else 1.0)
    out, classes = RandomScaleCrop((40, 40), rotation=90.0)(image, mask)
    assert torch.equal(classes, mask.rot90(1)) and torch.equal(out, image.rot90(1, (1, 2)))
    monkeypatch.setattr("atrous.data.transforms._uniform", lambda low, high: 10.0 if high > 2 else 1.0)
    _, classes = RandomScaleCrop((40, 40), rotation=10.0)(*striped(200, 200))
    assert not (classes == 255).any()  # the corners are filled from the picture, which is larger


def test_photometric_changes_leave_the_mask_alone() -> None:
    image, mask = striped(48, 48)
    transform = train_transform(48, scale=(1.0, 1.0), flip=False, jitter=0.4, blur=True)
    changed = 0
    for _ in range(5):
        out, classes = transform(image, mask)
        assert torch.equal(classes, mask) and out.dtype == torch.uint8
        changed += not torch.equal(out, image)
    assert changed == 5


def test_the_same_seed_gives_the_same_crop() -> None:
    transform = train_transform(33, rotation=10, jitter=0.3, blur=True)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(transform(*striped(70, 50)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    for rotation in (0, 10):
        image, mask = train_transform((17, 31), rotation=rotation)(*striped(*size))
        assert image.shape == (3, 17, 31) and mask.shape == (17, 31)


def test_masks_of_many_classes() -> None:
    image, mask = striped(20, 20)
    deep = tv_tensors.Mask(mask.to(torch.int32) * 100)
    _, out = train_transform(16, rotation=10, ignore_index=65535)(image, deep)
    assert out.dtype == torch.int32 and set(out.unique().tolist()) <= {0, 100, 200, 300, 400, 65535}


def test_what_cannot_be_done() -> None:
    with pytest.raises(ValueError, match="crop size"):
        train_transform(0)
    with pytest.raises(ValueError, match="two positive numbers"):
        train_transform(8, scale=(2.0, 0.5))


def test_normalisation_is_torchvisions() -> None:
    """The fill is the mean that torchvision's ImageNet weights subtract: what is padded becomes about zero."""
    filled = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    scaled = v2.functional.to_dtype(filled, torch.float32, scale=True)
    normal = functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert normal.abs().max() < 0.01
