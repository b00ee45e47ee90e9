"""The embedded data set: road-side scenes, drawn on demand, the same for the same (seed, split, index) everywhere.

Nine classes share their colours: an overcast sky is as grey as road, concrete and cars, meadows are as green as
trees, fences, trunks and poles have the same browns and greys, and the light changes from scene to scene. What a
pixel is, its colour does not tell (benchmarks/scenes_baseline.py measures it); texture, shape and place do.

A scene is painted from back to front at twice its size, colours and classes alike, then reduced; texture, light
and noise follow at the final size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from atrous.data.base import SegmentationDataset, Transform
from atrous.data.labels import Labels
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
SKY, BUILDING, ROAD, GROUND, TREE, FENCE, POLE, CAR, PERSON = range(9)

SPLITS = {"train": 0, "val": 1, "test": 2}
LENGTHS = {"train": 1000, "val": 200, "test": 200}

RGB = tuple[int, int, int]
Point = tuple[float, float]


class Scenes(SegmentationDataset):
    """Drawn scenes as a data set; see `draw_scene`. Nothing is kept: each access draws."""

    def __init__(self, split: str, size: tuple[int, int], length: int, seed: int, transform: Transform | None) -> None:
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
    size: tuple[int, int] = (120, 160),
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
    return Scenes(split, (int(size[0]), int(size[1])), LENGTHS[split] if length is None else length, seed, transform)


def draw_scene(
    index: int, split: str = "train", seed: int = 0, size: tuple[int, int] = (120, 160)
) -> tuple[np.ndarray, np.ndarray]:
    """One scene: picture (H, W, 3) uint8 RGB and classes (H, W) uint8, 0..8 in the order of `SCENES.names`."""
    rng = np.random.default_rng([seed, SPLITS[split], index])
    height, width = size
    canvas = _Canvas(2 * width, 2 * height, rng)
    weather = _paint_sky(canvas)
    horizon = canvas.height * rng.uniform(0.36, 0.52)
    _paint_hills(canvas, horizon, weather)
    _paint_ground(canvas, horizon)
    lane = _Lane(canvas, horizon)
    _paint_skyline(canvas, horizon, weather, lane)
    lane.paint()
    _paint_things(canvas, horizon, lane)
    return _finish(canvas, weather, height, width)


class _Canvas:
    """Two drawings of the same shapes: colours, and classes."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width, self.height, self.rng = width, height, rng
        self.unit = height / 120  # lengths below are given in 120ths of the height
        self.picture = Image.new("RGB", (width, height))
        self.classes = Image.new("L", (width, height), SKY)
        self.ink = ImageDraw.Draw(self.picture)
        self.glaze = ImageDraw.Draw(self.picture, "RGBA")  # blends translucent fills
        self.label = ImageDraw.Draw(self.classes)

    def polygon(self, points: Sequence[Point], colour: tuple[int, ...], label: int | None = None) -> None:
        (self.ink if len(colour) == 3 else self.glaze).polygon(points, fill=colour)
        if label is not None:
            self.label.polygon(points, fill=label)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...], label: int | None = None) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, label)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: tuple[int, ...], label: int | None = None
    ) -> None:
        (self.ink if len(colour) == 3 else self.glaze).ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)
        if label is not None:
            self.label.ellipse((x - rx, y - ry, x + rx, y + ry), fill=label)

    def shadow(self, x: float, y: float, rx: float, ry: float) -> None:
        self.ellipse(x, y, rx, ry, (12, 14, 30, 95))

    def pick(self, colours: Sequence[RGB], spread: int = 14) -> RGB:
        """One of the colours, shifted a little."""
        colour = colours[int(self.rng.integers(len(colours)))]
        return _shift(colour, self.rng.integers(-spread, spread + 1, 3).tolist())


GREYS: tuple[RGB, ...] = ((92, 94, 98), (122, 122, 124), (150, 150, 150), (176, 176, 174))
BROWNS: tuple[RGB, ...] = ((112, 84, 60), (140, 106, 76), (90, 70, 56), (164, 132, 98))
GREENS: tuple[RGB, ...] = ((76, 112, 58), (98, 130, 66), (62, 96, 60), (120, 138, 72))
BRICKS: tuple[RGB, ...] = ((158, 88, 70), (178, 120, 92), (136, 74, 64))
PALES: tuple[RGB, ...] = ((206, 196, 176), (220, 214, 204), (188, 194, 200))
VIVIDS: tuple[RGB, ...] = ((176, 44, 42), (44, 78, 148), (206, 164, 52), (48, 108, 96), (196, 110, 60), (34, 36, 42))
AUTUMN: tuple[RGB, ...] = ((176, 112, 52), (158, 76, 48), (186, 148, 66))

# top of the sky, sky at the horizon, clouds, light on everything (gain of R, G, B)
WEATHERS: tuple[tuple[RGB, RGB, RGB, tuple[float, float, float]], ...] = (
    ((74, 130, 196), (186, 212, 232), (248, 248, 248), (1.06, 1.03, 0.96)),  # clear
    ((120, 160, 200), (206, 214, 214), (236, 236, 238), (1.0, 1.0, 1.0)),  # fair
    ((134, 138, 144), (182, 184, 186), (206, 208, 210), (0.90, 0.92, 0.95)),  # overcast
    ((92, 96, 104), (150, 152, 154), (122, 124, 130), (0.78, 0.80, 0.84)),  # rain
    ((96, 110, 160), (244, 178, 118), (250, 200, 160), (1.10, 0.93, 0.78)),  # sunset
    ((150, 126, 112), (214, 180, 144), (226, 204, 180), (1.04, 0.96, 0.84)),  # haze
    ((54, 64, 104), (156, 136, 152), (120, 108, 132), (0.70, 0.70, 0.84)),  # dusk
)


def _shift(colour: Sequence[float], by: Sequence[float] | float) -> RGB:
    steps = [by] * 3 if isinstance(by, (int, float)) else by
    red, green, blue = (int(min(255, max(0, c + s))) for c, s in zip(colour, steps, strict=True))
    return red, green, blue


def _mix(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _paint_sky(canvas: _Canvas) -> int:
    rng = canvas.rng
    weather = int(rng.integers(len(WEATHERS)))
    top, low, cloud, _ = WEATHERS[weather]
    ramp = np.linspace(0, 1.8, canvas.height, dtype=np.float64).clip(0, 1)[:, None]
    column = (np.array(top) + (np.array(low) - np.array(top)) * ramp).astype(np.uint8)
    canvas.picture.paste(Image.fromarray(column[:, None, :]).resize(canvas.picture.size))
    if rng.random() < 0.35:
        x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.08, 0.3) * canvas.height
        for radius, alpha in ((16, 40), (11, 60), (7, 230)):
            canvas.ellipse(x, y, radius * canvas.unit, radius * canvas.unit, (255, 246, 214, alpha))
    # clouds: wide, soft noise where it is high
    small = rng.integers(0, 256, (7, 9), dtype=np.uint8)
    field = Image.fromarray(small).resize((canvas.width // 2, canvas.height // 2), Image.Resampling.BICUBIC)
    puffs = rng.integers(0, 256, (18, 22), dtype=np.uint8)
    detail = Image.fromarray(puffs).resize(field.size, Image.Resampling.BICUBIC)
    amount = np.asarray(field, dtype=np.int32) * 3 + np.asarray(detail, dtype=np.int32) - int(rng.integers(520, 760))
    alpha = Image.fromarray((amount // 2).clip(0, 190).astype(np.uint8)).resize(canvas.picture.size)
    canvas.picture.paste(Image.new("RGB", canvas.picture.size, cloud), mask=alpha)
    return weather


def _paint_hills(canvas: _Canvas, horizon: float, weather: int) -> None:
    """Wooded ridges, paler the farther."""
    rng, unit = canvas.rng, canvas.unit
    haze = WEATHERS[weather][1]
    for far in (0.62, 0.38, 0.15)[int(rng.integers(0, 3)) :]:
        colour = _mix(canvas.pick(GREENS if rng.random() < 0.75 else AUTUMN), haze, far)
        knots = np.array([rng.uniform(2, 20 + 16 * far) for _ in range(8)]) * unit
        xs = np.arange(0, canvas.width + 8, 6 * unit)
        ridge = horizon - np.interp(xs, np.linspace(0, canvas.width, 8), knots)
        ridge -= rng.uniform(0, 3.0, len(xs)) * unit * (1 - far)
        points = [*zip(xs.tolist(), ridge.tolist(), strict=True), (canvas.width, horizon + 2), (0, horizon + 2)]
        canvas.polygon(points, colour, TREE)


def _paint_ground(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    kind = rng.random()
    colours = GREENS if kind < 0.5 else (BROWNS if kind < 0.65 else GREYS if kind < 0.9 else PALES)
    colour = canvas.pick(colours)
    canvas.box(0, horizon, canvas.width, canvas.height, colour, GROUND)
    for _ in range(int(rng.integers(3, 8))):  # patches
        y = rng.uniform(horizon, canvas.height)
        depth = (y - horizon) / (canvas.height - horizon)
        rx, ry = rng.uniform(10, 40) * canvas.unit * (0.4 + depth), rng.uniform(1, 4) * canvas.unit * (0.4 + depth)
        canvas.ellipse(rng.uniform(0, canvas.width), y, rx, ry, (*canvas.pick([*colours, *BROWNS]), 90))


class _Lane:
    """The road: towards the horizon, or across the picture."""

    def __init__(self, canvas: _Canvas, horizon: float) -> None:
        rng = canvas.rng
        self.canvas, self.horizon = canvas, horizon
        self.across = bool(rng.random() < 0.4)
        self.vanishing = rng.uniform(0.3, 0.7) * canvas.width
        self.bend = rng.uniform(-0.25, 0.25) * canvas.width
        self.near = rng.uniform(0.35, 0.75) * canvas.width  # half the width at the lower edge
        span = canvas.height - horizon
        self.top = horizon + span * rng.uniform(0.25, 0.5)
        self.bottom = min(canvas.height + 2.0, self.top + span * rng.uniform(0.35, 0.55))
        self.colour = canvas.pick([*GREYS, *GREYS, (104, 96, 92), (132, 120, 108)])

    def depth(self, y: float) -> float:
        """0 at the horizon, 1 at the lower edge."""
        return (y - self.horizon) / (self.canvas.height - self.horizon)

    def edges(self, y: float) -> Point:
        """Where the road begins and ends at height y."""
        if self.across:
            return (0.0, float(self.canvas.width)) if self.top <= y <= self.bottom else (0.0, 0.0)
        depth = self.depth(y)
        centre = self.vanishing + self.bend * (1 - depth) * depth + (self.canvas.width / 2 - self.vanishing) * depth
        half = 1.5 * self.canvas.unit + (self.near - 1.5 * self.canvas.unit) * depth
        return centre - half, centre + half

    def band(self, left: float, right: float, y0: float, y1: float, colour: RGB, label: int | None = None) -> None:
        """A stripe along the road, from share `left` to `right` of its width, between two heights."""
        ys = np.linspace(y0, y1, 12).tolist()
        rims = [self.edges(y) for y in ys]
        one = [(a + (b - a) * left, y) for (a, b), y in zip(rims, ys, strict=True)]
        two = [(a + (b - a) * right, y) for (a, b), y in zip(rims, ys, strict=True)]
        self.canvas.polygon([*one, *reversed(two)], colour, label)

    def paint(self) -> None:
        canvas, rng = self.canvas, self.canvas.rng
        kerb, mark = _shift(self.colour, 42), canvas.pick([(226, 226, 220), (222, 190, 96)])
        if self.across:
            canvas.box(0, self.top, canvas.width, self.bottom, self.colour, ROAD)
            canvas.box(0, self.top, canvas.width, self.top + 1.2 * canvas.unit, kerb)
            middle, dash = (self.top + self.bottom) / 2, rng.uniform(8, 14) * canvas.unit
            for x in np.arange(rng.uniform(-dash, 0), canvas.width, 2 * dash).tolist():
                canvas.box(x, middle, x + dash, middle + 1.6 * canvas.unit, mark)
            return
        self.band(0, 1, self.horizon, canvas.height + 2, self.colour, ROAD)
        self.band(0, 0.02, self.horizon, canvas.height + 2, kerb)
        self.band(0.98, 1, self.horizon, canvas.height + 2, kerb)
        stops = self.horizon + (canvas.height + 2 - self.horizon) * np.linspace(0.22, 1, 10) ** 2
        for y0, y1 in zip(stops[:-1:2].tolist(), stops[1::2].tolist(), strict=False):
            self.band(0.485, 0.515, y0, y1, mark)


def _paint_skyline(canvas: _Canvas, horizon: float, weather: int, lane: _Lane) -> None:
    """Buildings and woods behind everything else."""
    rng, unit = canvas.rng, canvas.unit
    haze = WEATHERS[weather][1]
    x = rng.uniform(-30, 20) * unit
    while x < canvas.width:
        kind = rng.random()
        wide = rng.uniform(18, 44) * unit
        base = horizon + rng.uniform(1, 9) * unit
        if kind < 0.6:
            _paint_building(canvas, x, base, wide, rng.uniform(22, 58) * unit, haze)
        elif kind < 0.8:
            _paint_tree(canvas, x + wide / 2, base, rng.uniform(22, 36) * unit)
            wide *= 0.8
        x += wide + (rng.uniform(0, 18) * unit if rng.random() < 0.5 else 0)


def _paint_building(canvas: _Canvas, x: float, base: float, wide: float, tall: float, haze: RGB) -> None:
    rng, unit = canvas.rng, canvas.unit
    wall = _mix(canvas.pick([*BRICKS, *GREYS, *PALES, *BROWNS, (112, 130, 150)]), haze, rng.uniform(0, 0.2))
    top = base - tall
    canvas.box(x, top, x + wide, base, wall, BUILDING)
    if rng.random() < 0.45:  # gable
        roof = canvas.pick([*BRICKS, *GREYS, (72, 64, 66)])
        ridge = top - rng.uniform(6, 12) * unit
        points = [(x - 1.5 * unit, top), (x + wide * 0.2, ridge), (x + wide * 0.8, ridge), (x + wide + 1.5 * unit, top)]
        canvas.polygon(points, roof, BUILDING)
    else:
        canvas.box(x - unit, top, x + wide + unit, top + 2 * unit, _shift(wall, -28), BUILDING)
    side = wide * rng.uniform(0.12, 0.3)
    if rng.random() < 0.5:
        canvas.box(x + wide - side, top, x + wide, base, (0, 0, 20, 60))
        wide -= side
    step_x, step_y = rng.uniform(6, 9) * unit, rng.uniform(8, 11) * unit
    pane = canvas.pick([(58, 70, 86), (40, 46, 58), (150, 176, 196)])
    columns, rows = max(1, int((wide - 2 * unit) / step_x)), max(1, int((tall - 5 * unit) / step_y))
    gap_x, gap_y = wide / columns, (tall - 4 * unit) / rows
    lit = rng.random((rows, columns)) < rng.choice([0.02, 0.25])
    for row in range(rows):
        for column in range(columns):
            left, upper = x + (column + 0.25) * gap_x, top + 4 * unit + (row + 0.12) * gap_y
            glass = (248, 214, 136) if lit[row, column] else pane
            canvas.box(left, upper, left + gap_x * 0.5, upper + gap_y * 0.55, glass)
            canvas.box(left, upper + gap_y * 0.55, left + gap_x * 0.5, upper + gap_y * 0.62, _shift(wall, 30))


def _paint_tree(canvas: _Canvas, x: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    leaf = canvas.pick([*GREENS, *GREENS, *AUTUMN] if rng.random() < 0.7 else GREENS)
    canvas.shadow(x + tall * 0.1, base, tall * 0.35, tall * 0.07)
    trunk = max(3.2 * unit, tall * 0.08)
    canvas.box(x - trunk / 2, base - tall * 0.45, x + trunk / 2, base, canvas.pick(BROWNS), TREE)
    if rng.random() < 0.25:  # conifer
        for level in range(3):
            y, half = base - tall * (0.2 + 0.24 * level), tall * (0.3 - 0.07 * level)
            points = [(x - half, y), (x, y - tall * 0.42), (x + half, y)]
            canvas.polygon(points, _shift(leaf, 8 * level - 12), TREE)
        return
    for number in range(9):
        angle = rng.random() * 2 - 1
        rise = rng.uniform(-0.22, 0.24)
        radius = tall * rng.uniform(0.13, 0.21)
        colour = _shift(leaf, float(26 * rise / 0.24 * 0.8 + rng.uniform(-8, 8)))
        cx, cy = x + angle * tall * 0.24, base - tall * (0.64 + rise * (1 - abs(angle)))
        canvas.ellipse(cx, cy, radius * 1.1, radius, colour if number else leaf, TREE)


def _paint_fence(canvas: _Canvas, x0: float, x1: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    colour = canvas.pick([*BROWNS, *GREYS, (222, 222, 216), (70, 92, 70)])
    canvas.label.polygon([(x0, base - tall), (x1, base - tall), (x1, base), (x0, base)], fill=FENCE)
    dark = _shift(colour, -22)
    for share in (0.2, 0.68):
        canvas.box(x0, base - tall * (1 - share), x1, base - tall * (1 - share) + 1.8 * unit, dark)
    step = rng.uniform(3.6, 5.4) * unit
    pointed = rng.random() < 0.5
    for x in np.arange(x0, x1 - 0.4 * step, step).tolist():
        points = [(x, base), (x, base - tall), (x + 0.55 * step, base - tall), (x + 0.55 * step, base)]
        if pointed:
            points.insert(2, (x + 0.28 * step, base - tall - 1.5 * unit))
        canvas.polygon(points, colour)


def _paint_pole(canvas: _Canvas, x: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    half = max(1.7 * unit, tall * 0.024)
    colour = canvas.pick([*GREYS, *BROWNS, (60, 64, 66)])
    canvas.shadow(x + 6 * unit, base, 9 * unit, 1.3 * unit)
    canvas.box(x - half, base - tall, x + half, base, colour, POLE)
    canvas.box(x - half, base - tall, x - half * 0.3, base, _shift(colour, 26))
    kind = rng.random()
    top = base - tall
    if kind < 0.4:  # street lamp
        reach = rng.choice([-1.0, 1.0]) * rng.uniform(9, 15) * unit
        canvas.box(min(x, x + reach), top, max(x, x + reach), top + 2.6 * unit, colour, POLE)
        canvas.ellipse(x + reach, top + 2.2 * unit, 4 * unit, 2.4 * unit, (244, 232, 190), POLE)
    elif kind < 0.75:  # sign
        radius = rng.uniform(5, 7) * unit
        face, rim = canvas.pick([(232, 232, 228), (44, 78, 148), (206, 164, 52)]), canvas.pick([(184, 40, 40), (230, 230, 226)])
        if rng.random() < 0.5:
            canvas.ellipse(x, top, radius, radius, rim, POLE)
            canvas.ellipse(x, top, radius * 0.68, radius * 0.68, face)
        else:
            for size, paint in ((1.25, rim), (0.75, face)):
                points = [(x - radius * size, top + radius * size * 0.7), (x, top - radius * size), (x + radius * size, top + radius * size * 0.7)]
                canvas.polygon(points, paint, POLE)
    else:  # mast with cross-arms; its wires belong to what is behind them
        for drop in (3, 9):
            canvas.box(x - 8 * unit, top + drop * unit, x + 8 * unit, top + (drop + 2.6) * unit, colour, POLE)
            for end in (-7, 7):
                sag = [(x + end * unit + s * canvas.width, top + drop * unit + 10 * unit * (s - s * s)) for s in (-1.0, -0.5, 0.0, 0.5, 1.0)]
                canvas.glaze.line(sag, fill=(40, 42, 48, 150), width=1)


def _paint_car(canvas: _Canvas, x: float, base: float, tall: float, side: bool) -> None:
    """tall: height of the car; seen from the side or from behind."""
    rng = canvas.rng
    colour = canvas.pick([*VIVIDS, *GREYS, *PALES])
    glass, tyre = canvas.pick([(52, 62, 76), (120, 146, 164)]), (26, 26, 30)
    dark = _shift(colour, -34)
    if side:
        long, way = tall * rng.uniform(2.3, 2.9), float(rng.choice([-1.0, 1.0]))

        def at(u: float, v: float) -> Point:
            return x + way * (u - 0.5) * long, base - v * tall

        canvas.shadow(x, base - 0.02 * tall, long * 0.54, tall * 0.12)
        roof = rng.uniform(0.6, 0.78)
        shape = [(0, 0.2), (0.01, 0.52), (0.16, 0.62), (0.3, 1), (roof, 1), (roof + 0.12, 0.6), (0.99, 0.5), (1, 0.2)]
        canvas.polygon([at(*p) for p in shape], colour, CAR)
        canvas.polygon([at(*p) for p in [(0.22, 0.62), (0.33, 0.93), (0.48, 0.93), (0.48, 0.62)]], glass)
        canvas.polygon([at(*p) for p in [(0.51, 0.62), (0.51, 0.93), (roof - 0.02, 0.93), (roof + 0.07, 0.62)]], glass)
        canvas.polygon([at(*p) for p in [(0, 0.2), (0, 0.32), (1, 0.32), (1, 0.2)]], dark)
        for hub in (0.2, 0.8):
            cx, cy = at(hub, 0.2)
            canvas.ellipse(cx, cy, tall * 0.22, tall * 0.21, tyre, CAR)
            canvas.ellipse(cx, cy, tall * 0.1, tall * 0.1, (168, 170, 172))
        return
    half = tall * rng.uniform(0.56, 0.68)
    canvas.shadow(x, base, half * 1.25, tall * 0.12)
    for wheel in (-0.72, 0.72):
        canvas.box(x + (wheel - 0.16) * half, base - 0.3 * tall, x + (wheel + 0.16) * half, base, tyre, CAR)
    body = [(-1, 0.14), (-1, 0.55), (-0.86, 0.62), (-0.66, 1), (0.66, 1), (0.86, 0.62), (1, 0.55), (1, 0.14)]
    canvas.polygon([(x + u * half, base - v * tall) for u, v in body], colour, CAR)
    pane = [(-0.74, 0.62), (-0.58, 0.93), (0.58, 0.93), (0.74, 0.62)]
    canvas.polygon([(x + u * half, base - v * tall) for u, v in pane], glass)
    canvas.box(x - half, base - 0.28 * tall, x + half, base - 0.14 * tall, dark)
    for lamp in (-0.84, 0.84):
        canvas.ellipse(x + lamp * half, base - 0.46 * tall, 0.13 * half, 0.07 * tall, (206, 44, 40))


def _paint_person(canvas: _Canvas, x: float, base: float, tall: float) -> None:
    rng = canvas.rng
    clothes = [*VIVIDS, *GREYS, *PALES, *GREENS]
    shirt, trousers = canvas.pick(clothes), canvas.pick([*GREYS, *BROWNS, (44, 52, 78), (34, 34, 40)])
    skin = canvas.pick([(226, 182, 150), (190, 138, 104), (122, 82, 60)])
    hair = canvas.pick([(52, 40, 34), (140, 104, 62), (30, 28, 30), (150, 148, 146)])
    stride = rng.uniform(0.03, 0.11) * tall
    limb = tall * 0.085
    canvas.shadow(x + tall * 0.08, base, tall * 0.2, tall * 0.035)
    for way in (-1, 1):
        foot = x + way * stride
        hip = x + way * limb * 0.5
        canvas.polygon([(hip - limb * 0.62, base - 0.5 * tall), (hip + limb * 0.62, base - 0.5 * tall), (foot + limb * 0.55, base), (foot - limb * 0.55, base)], trousers if way < 0 else _shift(trousers, -12), PERSON)
        elbow = x + way * tall * 0.15
        canvas.polygon([(x + way * 0.06 * tall, base - 0.82 * tall), (x + way * 0.13 * tall, base - 0.78 * tall), (elbow + limb * 0.45, base - 0.5 * tall), (elbow - limb * 0.45, base - 0.5 * tall)], _shift(shirt, -18), PERSON)
    chest = [(-0.11, 0.83), (0.11, 0.83), (0.12, 0.6), (0.09, 0.46), (-0.09, 0.46), (-0.12, 0.6)]
    canvas.polygon([(x + u * tall, base - v * tall) for u, v in chest], shirt, PERSON)
    canvas.ellipse(x, base - 0.915 * tall, tall * 0.078, tall * 0.088, hair, PERSON)
    canvas.ellipse(x, base - 0.895 * tall, tall * 0.06, tall * 0.066, skin)


def _paint_things(canvas: _Canvas, horizon: float, lane: _Lane) -> None:
    """Fences, trees, poles, cars and people, the far ones first."""
    rng, unit, width = canvas.rng, canvas.unit, canvas.width
    span = canvas.height - horizon
    things: list[tuple[float, str]] = []

    def scatter(kind: str, low: int, high: int, near: float, far: float) -> None:
        things.extend((horizon + span * rng.uniform(near, far), kind) for _ in range(int(rng.integers(low, high + 1))))

    scatter("fence", 0, 2, 0.12, 0.75)
    scatter("tree", 0, 2, 0.1, 0.6)
    scatter("pole", 1, 3, 0.15, 0.9)
    scatter("car", 1, 3, 0.2, 0.95)
    scatter("person", 1, 4, 0.25, 1.0)
    for base, kind in sorted(things):
        depth = lane.depth(base)
        scale = 0.5 + 0.75 * depth
        left, right = lane.edges(base)
        if lane.across and kind == "car":
            base = lane.top + (lane.bottom - lane.top) * rng.uniform(0.15, 0.8)
            scale = 0.5 + 0.75 * lane.depth(base)
        x = rng.uniform(0.02, 0.98) * width
        if kind == "car":
            if not lane.across:
                x = left + (right - left) * rng.choice([0.27, 0.73])
            if -10 < x < width + 10:
                _paint_car(canvas, x, base, rng.uniform(19, 25) * unit * scale, lane.across)
        elif kind == "person":
            _paint_person(canvas, x, base, rng.uniform(30, 40) * unit * scale)
        elif lane.across and lane.top < base < lane.bottom + 2:
            continue  # nothing else stands on the road
        elif kind == "fence":
            _fence_beside(canvas, lane, base, rng.uniform(13, 18) * unit * scale)
        elif not left - 3 * unit < x < right + 3 * unit or lane.across:
            if kind == "pole":
                _paint_pole(canvas, x, base, rng.uniform(52, 84) * unit * scale)
            else:
                _paint_tree(canvas, x, base, rng.uniform(42, 62) * unit * scale)


def _fence_beside(canvas: _Canvas, lane: _Lane, base: float, tall: float) -> None:
    rng, width = canvas.rng, canvas.width
    if lane.across:
        start = rng.uniform(-0.2, 0.5) * width
        _paint_fence(canvas, start, start + rng.uniform(0.4, 1.0) * width, base, tall)
        return
    left, right = lane.edges(base)
    if rng.random() < 0.5 and left > 12 * canvas.unit:
        _paint_fence(canvas, -4.0, left - 3 * canvas.unit, base, tall)
    elif right < width - 12 * canvas.unit:
        _paint_fence(canvas, right + 3 * canvas.unit, width + 4.0, base, tall)


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


def _finish(canvas: _Canvas, weather: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce, then texture, light, shade and sensor noise."""
    rng = canvas.rng
    classes = np.array(canvas.classes)[::2, ::2].copy()
    pixels = np.array(canvas.picture.reduce(2), dtype=np.float32)
    scale = height / 120
    cells = ((1, 1), (2.6 * scale, 2.6 * scale), (4 * scale, 1), (2 * scale, 14 * scale), (22 * scale, 30 * scale))
    strength = TEXTURE * rng.uniform(0.7, 1.3, TEXTURE.shape).astype(np.float32)
    relief = np.zeros((height, width), dtype=np.float32)
    for number, cell in enumerate(cells):
        relief += strength[:, number][classes] * _noise(rng, height, width, *cell)
    pixels += relief[..., None]

    across, down = (np.float32(rng.uniform(*ends)) for ends in ((-0.22, 0.22), (-0.05, 0.15)))
    light = 1 + across * _ramp(width)[None, :] + down * _ramp(height)[:, None]
    shaded = (_noise(rng, height, width, height / 3, width / 3) > 0.25) & (classes != SKY)
    light *= 1 - np.float32(rng.uniform(0, 0.3)) * shaded
    gain = np.array(WEATHERS[weather][3]) * rng.uniform(0.85, 1.12)
    pixels *= light[..., None]
    pixels *= gain.astype(np.float32)
    pixels += rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(rng.uniform(1.5, 5))
    return pixels.clip(0, 255, out=pixels).astype(np.uint8), classes


def _ramp(length: int) -> np.ndarray:
    return np.linspace(-1, 1, length, dtype=np.float32)
