"""The land of a drawn scene: sky, wooded ridges, ground and road."""

from __future__ import annotations

import numpy as np
from PIL import Image

from atrous.data.scene_canvas import (
    AUTUMN,
    BROWNS,
    GREENS,
    GREYS,
    GROUND,
    HAYS,
    PALES,
    RGB,
    ROAD,
    TREE,
    WEATHER_ODDS,
    WEATHERS,
    Canvas,
    Point,
    mix,
    shift,
)


def paint_sky(canvas: Canvas) -> int:
    rng = canvas.rng
    weather = WEATHER_ODDS[int(rng.integers(len(WEATHER_ODDS)))]
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
    amount = (
        np.asarray(field, dtype=np.int32) * 3
        + np.asarray(detail, dtype=np.int32)
        - int(rng.integers(520, 760))
    )
    cover = Image.fromarray((amount // 2).clip(0, 190).astype(np.uint8)).resize(canvas.picture.size)
    canvas.picture.paste(Image.new("RGB", canvas.picture.size, cloud), mask=cover)
    return weather


def paint_hills(canvas: Canvas, horizon: float, weather: int) -> None:
    """Wooded ridges, paler the farther."""
    rng, unit = canvas.rng, canvas.unit
    haze = WEATHERS[weather][1]
    for far in (0.62, 0.38, 0.15)[int(rng.integers(0, 3)) :]:
        colour = mix(canvas.pick(GREENS if rng.random() < 0.75 else AUTUMN), haze, far)
        knots = np.array([rng.uniform(2, 20 + 16 * far) for _ in range(8)]) * unit
        xs = np.arange(0, canvas.width + 8, 6 * unit)
        ridge = horizon - np.interp(xs, np.linspace(0, canvas.width, 8), knots)
        ridge -= rng.uniform(0, 3.0, len(xs)) * unit * (1 - far)
        points = [
            *zip(xs.tolist(), ridge.tolist(), strict=True),
            (canvas.width, horizon + 2),
            (0, horizon + 2),
        ]
        canvas.polygon(points, colour, TREE)


def paint_ground(canvas: Canvas, horizon: float) -> None:
    rng = canvas.rng
    kind = rng.random()
    colours = GREENS if kind < 0.72 else (HAYS if kind < 0.88 else GREYS if kind < 0.96 else PALES)
    colour = canvas.pick(colours)
    canvas.box(0, horizon, canvas.width, canvas.height, colour, GROUND)
    for _ in range(int(rng.integers(3, 8))):  # patches
        y = rng.uniform(horizon, canvas.height)
        depth = (y - horizon) / (canvas.height - horizon)
        rx, ry = (
            rng.uniform(10, 40) * canvas.unit * (0.4 + depth),
            rng.uniform(1, 4) * canvas.unit * (0.4 + depth),
        )
        canvas.ellipse(rng.uniform(0, canvas.width), y, rx, ry, (*canvas.pick([*colours, *BROWNS]), 90))


class Lane:
    """The road: towards the horizon, or across the picture."""

    def __init__(self, canvas: Canvas, horizon: float) -> None:
        rng = canvas.rng
        self.canvas, self.horizon = canvas, horizon
        self.across = bool(rng.random() < 0.4)
        self.vanishing = rng.uniform(0.3, 0.7) * canvas.width
        self.bend = rng.uniform(-0.25, 0.25) * canvas.width
        self.near = rng.uniform(0.35, 0.75) * canvas.width  # half the width at the lower edge
        span = canvas.height - horizon
        self.top = horizon + span * rng.uniform(0.25, 0.5)
        self.bottom = min(canvas.height + 2.0, self.top + span * rng.uniform(0.35, 0.55))
        self.colour = canvas.pick([*GREYS, (104, 96, 92)], 8)

    def depth(self, y: float) -> float:
        """0 at the horizon, 1 at the lower edge."""
        return (y - self.horizon) / (self.canvas.height - self.horizon)

    def edges(self, y: float) -> Point:
        """Where the road begins and ends at height y."""
        if self.across:
            return (0.0, float(self.canvas.width)) if self.top <= y <= self.bottom else (0.0, 0.0)
        depth = self.depth(y)
        centre = (
            self.vanishing
            + self.bend * (1 - depth) * depth
            + (self.canvas.width / 2 - self.vanishing) * depth
        )
        half = 1.5 * self.canvas.unit + (self.near - 1.5 * self.canvas.unit) * depth
        return centre - half, centre + half

    def band(
        self, left: float, right: float, y0: float, y1: float, colour: RGB, label: int | None = None
    ) -> None:
        """A stripe along the road, from share `left` to `right` of its width, between two heights."""
        ys = np.linspace(y0, y1, 12).tolist()
        rims = [self.edges(y) for y in ys]
        one = [(a + (b - a) * left, y) for (a, b), y in zip(rims, ys, strict=True)]
        two = [(a + (b - a) * right, y) for (a, b), y in zip(rims, ys, strict=True)]
        self.canvas.polygon([*one, *reversed(two)], colour, label)

    def paint(self) -> None:
        canvas, rng = self.canvas, self.canvas.rng
        kerb, mark = shift(self.colour, 42), canvas.pick([(226, 226, 220), (222, 190, 96)])
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
