"""The embedded data set: road-side scenes, drawn on demand, the same for the same (seed, split, index) everywhere.

Nine classes share their colours: an overcast sky is as grey as road, concrete and cars, meadows are as green as
trees, fences, trunks and poles have the same browns and greys, and the light changes from scene to scene. What a
pixel is, its colour does not tell (benchmarks/scenes_baseline.py measures it); texture, shape and place do.

A scene is painted from back to front at twice its size, colours and classes alike, then reduced; texture, light
and noise follow at the final size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.labels import Labels
from atrous.data.scene_canvas import SKY, WEATHERS, Canvas
from atrous.data.scene_land import Lane, paint_ground, paint_hills, paint_sky
from atrous.data.scene_things import paint_skyline, paint_things
from atrous.errors import InputError, choose

SCENES = Labels(
    names=("sky", "building", "road", "ground", "tree", "fence", "pole", "car", "person"),
    palette=(
        (112, 166, 214),
        (156, 92, 72),
        (110, 104, 122),
        (176, 178, 98),
        (62, 122, 72),
        (206, 160, 92),
        (240, 214, 84),
        (66, 84, 168),
        (214, 70, 90),
    ),
)
SPLITS = {"train": 0, "val": 1, "test": 2}
LENGTHS = {"train": 1000, "val": 200, "test": 200}


class Scenes(SegmentationDataset):
    """Drawn scenes as a data set; see `draw_scene`. Nothing is kept: each access draws."""

    def __init__(
        self, split: str, size: tuple[int, int], length: int, seed: int, transform: Transform | None
    ) -> None:
        super().__init__([], SCENES, split, transform=transform)
        self.size, self.length, self.seed = size, length, seed

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"scene_{self.split}_{index:05d}"

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return draw_scene(index, self.split, self.seed, self.size)

    def image(self, index: int) -> np.ndarray:
        return self.arrays(index)[0]

    def mask(self, index: int) -> np.ndarray:
        return self.arrays(index)[1]


def open_scenes(
    path: str | Path = "scenes",
    split: str = "train",
    *,
    size: tuple[int, int] = (96, 128),
    length: int | None = None,
    seed: int = 0,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """Open the drawn scenes. size: (height, width); length: how many, any number (train 1000, val and test 200).

    Splits never share a scene: each has its own random stream. `path` is not looked at.
    """
    choose("split", split, SPLITS)
    if min(size) < 32:
        raise InputError(f"scenes of {size[1]}x{size[0]} pixels: at least 32x32 are needed")
    return Scenes(
        split, (int(size[0]), int(size[1])), LENGTHS[split] if length is None else length, seed, transform
    )


def draw_scene(
    index: int, split: str = "train", seed: int = 0, size: tuple[int, int] = (96, 128)
) -> tuple[np.ndarray, np.ndarray]:
    """One scene: picture (H, W, 3) uint8 RGB and classes (H, W) uint8, 0..8 in the order of `SCENES.names`."""
    rng = np.random.default_rng([seed, SPLITS[split], index])
    height, width = size
    canvas = Canvas(2 * width, 2 * height, rng)
    weather = paint_sky(canvas)
    horizon = canvas.height * rng.uniform(0.36, 0.52)
    paint_hills(canvas, horizon, weather)
    paint_ground(canvas, horizon)
    lane = Lane(canvas, horizon)
    paint_skyline(canvas, horizon, weather, lane)
    lane.paint()
    paint_things(canvas, lane)
    return _finish(canvas, weather, height, width)


# How strongly each class shows each texture: grain (one pixel), leaves, blades (upright), courses (level), swell.
TEXTURE = np.array(
    [
        (0, 0, 0, 0, 4),  # sky
        (4, 0, 0, 11, 4),  # building
        (11, 0, 0, 0, 6),  # road
        (5, 0, 15, 0, 9),  # ground
        (6, 26, 0, 0, 10),  # tree
        (3, 0, 8, 0, 2),  # fence
        (3, 0, 0, 0, 0),  # pole
        (0, 0, 0, 0, 3),  # car
        (5, 0, 0, 0, 0),  # person
    ],
    dtype=np.float32,
)


def _noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> np.ndarray:
    """(H, W) float32 in -1..1, smooth over cells of the given size in pixels."""
    small = rng.integers(0, 256, (max(2, int(height / cell_y)), max(2, int(width / cell_x))), dtype=np.uint8)
    field = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, dtype=np.float32) * np.float32(1 / 127.5) - np.float32(1)


def _finish(canvas: Canvas, weather: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce, then texture, light, shade and sensor noise."""
    rng = canvas.rng
    classes = np.array(canvas.classes)[::2, ::2].copy()
    pixels = np.array(canvas.picture.reduce(2), dtype=np.float32)
    scale = height / 120
    cells = (
        (1, 1),
        (2.6 * scale, 2.6 * scale),
        (4 * scale, 1),
        (2 * scale, 14 * scale),
        (22 * scale, 30 * scale),
    )
    strength = TEXTURE * rng.uniform(0.7, 1.3, TEXTURE.shape).astype(np.float32)
    relief = np.zeros((height, width), dtype=np.float32)
    for number, cell in enumerate(cells):
        relief += strength[:, number][classes] * _noise(rng, height, width, *cell)
    pixels += relief[..., None]

    across, down = (np.float32(rng.uniform(*ends)) for ends in ((-0.22, 0.22), (-0.05, 0.15)))
    light = 1 + across * _ramp(width)[None, :] + down * _ramp(height)[:, None]
    shaded = (_noise(rng, height, width, height / 3, width / 3) > 0.25) & (classes != SKY)
    light *= 1 - np.float32(rng.uniform(0, 0.25)) * shaded
    gain = np.array(WEATHERS[weather][3]) * rng.uniform(0.9, 1.1)
    pixels *= light[..., None]
    pixels *= gain.astype(np.float32)
    pixels += rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(rng.uniform(1.5, 4))
    return pixels.clip(0, 255, out=pixels).astype(np.uint8), classes


def _ramp(length: int) -> np.ndarray:
    return np.linspace(-1, 1, length, dtype=np.float32)
