"""Augmentation of a picture together with its mask.

Pictures stay uint8; normalisation happens on the device, in the trainer. Random numbers are torch's, so
that every worker of a DataLoader draws its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from atrous.data.base import Transform
from atrous.data.labels import IGNORE_INDEX

# ImageNet's mean (0.485, 0.456, 0.406) in 0..255: what padding becomes zero with, once normalised.
FILL = (124, 116, 104)


def train_transform(
    crop_size: int | tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    flip: bool = True,
    jitter: float = 0.0,
    rotation: float = 0.0,
    blur: bool = False,
    *,
    base_size: int | None = None,
    fill: tuple[int, int, int] = FILL,
    ignore_index: int = IGNORE_INDEX,
) -> Transform:
    """The papers' augmentation: (image, mask) of any size -> (image, mask) of `crop_size`.

    crop_size: height and width (or one number for both) of what comes out.
    scale: the picture is scaled by a factor drawn evenly from this range, then cropped at random; where it is
        smaller than the crop, the image is padded with `fill` (RGB 0..255) and the mask with `ignore_index`.
        DeepLab v3 and PSPNet: (0.5, 2.0); v2: (0.5, 1.5).
    flip: mirror every second picture.
    jitter: brightness, contrast and saturation are multiplied by factors from 1 - jitter to 1 + jitter.
    rotation: turn by up to this many degrees either way; PSPNet: 10. Corners that appear are padding.
    blur: blur every second picture, 5x5 Gaussian of standard deviation 1.1 (PSPNet's, in its authors' code).
    base_size: first bring the longer side to this many pixels (in the same resize), for photos much larger
        than the crop.
    Images are resized bilinearly with antialiasing, masks by nearest neighbour.
    """
    size = (crop_size, crop_size) if isinstance(crop_size, int) else (crop_size[0], crop_size[1])
    steps: list[nn.Module] = [RandomScaleCrop(size, scale, rotation, base_size, fill, ignore_index)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(0.5))
    if jitter > 0:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, sigma=(1.1, 1.1))], p=0.5))
    return v2.Compose(steps)


class RandomScaleCrop(nn.Module):
    """Random scale, rotation and crop in one step: only the window that is kept is ever resized.

    The result is that of resizing the whole picture, turning it about the window's centre, and cropping.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        rotation: float = 0.0,
        base_size: int | None = None,
        fill: tuple[int, int, int] = FILL,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        if min(size) < 1:
            raise ValueError(f"crop size {size} must be at least 1x1")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale {scale} must be two positive numbers, the smaller first")
        self.size, self.scale, self.rotation, self.base_size = size, scale, rotation, base_size
        self.fill, self.ignore_index = fill, ignore_index

    def forward(
        self, image: tv_tensors.Image, mask: tv_tensors.Mask
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        height, width = mask.shape[-2:]
        factor = _uniform(*self.scale)
        if self.base_size is not None:
            factor *= self.base_size / max(height, width)
        scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
        angle = _uniform(-self.rotation, self.rotation) if self.rotation else 0.0
        window = _turned_size(self.size, angle)
        top = _offset(scaled[0], self.size[0]) - (window[0] - self.size[0]) // 2
        left = _offset(scaled[1], self.size[1]) - (window[1] - self.size[1]) // 2

        pixels = resized_window(image.permute(1, 2, 0).numpy(), scaled, (top, left), window, self.fill)
        classes = resized_window(mask.numpy(), scaled, (top, left), window, self.ignore_index)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.from_numpy(classes))
        if angle:
            bilinear = v2.InterpolationMode.BILINEAR
            image = functional.rotate(image, angle, interpolation=bilinear, fill=list(self.fill))
            mask = functional.rotate(mask, angle, fill=self.ignore_index)
            image = functional.center_crop(image, list(self.size))
            mask = functional.center_crop(mask, list(self.size))
        return image, mask


def resized_window(
    array: np.ndarray,
    scaled: tuple[int, int],
    corner: tuple[int, int],
    window: tuple[int, int],
    fill: int | tuple[int, int, int],
) -> np.ndarray:
    """The part at `corner` (top, left) and of size `window` of `array` resized to `scaled`; `fill` outside.

    array: (H, W, 3) uint8, resized bilinearly with antialiasing, or (H, W) class numbers, nearest.
    """
    height, width = array.shape[:2]
    top, bottom = max(corner[0], 0), min(corner[0] + window[0], scaled[0])
    left, right = max(corner[1], 0), min(corner[1] + window[1], scaled[1])
    out = np.empty((*window, *array.shape[2:]), dtype=array.dtype)
    out[...] = fill
    if top >= bottom or left >= right:
        return out
    if scaled == (height, width):
        part = array[top:bottom, left:right]
    elif array.ndim == 2:
        rows = _nearest(np.arange(top, bottom), height, scaled[0])
        part = array[rows[:, None], _nearest(np.arange(left, right), width, scaled[1])]
    else:
        # Pillow takes a fractional box, and its filter still sees the pixels around the box.
        y, x = height / scaled[0], width / scaled[1]
        box = (left * x, top * y, min(right * x, width), min(bottom * y, height))
        picture = Image.fromarray(np.ascontiguousarray(array))
        part = np.asarray(picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box))
    out[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]] = part
    return out


def _nearest(positions: np.ndarray, length: int, scaled: int) -> np.ndarray:
    """The source pixel under the centre of each pixel of a side resized from `length` to `scaled`."""
    return (2 * positions + 1) * length // (2 * scaled)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _offset(length: int, crop: int) -> int:
    """Where a window of `crop` begins on a side of `length`: anywhere that wastes nothing."""
    low, high = min(0, length - crop), max(0, length - crop)
    return int(torch.randint(low, high + 1, ()))


def _turned_size(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Height and width of the upright window in which `size`, turned by `angle` degrees, fits."""
    if angle == 0:
        return size
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    height = math.ceil(size[0] * cosine + size[1] * sine)
    width = math.ceil(size[1] * cosine + size[0] * sine)
    # the same parity as `size`, so that the centres of both windows coincide
    return height + (height - size[0]) % 2, width + (width - size[1]) % 2
