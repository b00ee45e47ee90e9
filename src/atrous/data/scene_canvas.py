"""What the drawn scenes are painted with: two drawings of the same shapes, and the colours that classes share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SKY, BUILDING, ROAD, GROUND, TREE, FENCE, POLE, CAR, PERSON = range(9)

RGB = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
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

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...], label: int | None = None
    ) -> None:
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
        return shift(colour, self.rng.integers(-spread, spread + 1, 3).tolist())


GREYS: tuple[RGB, ...] = ((92, 94, 98), (122, 122, 124), (150, 150, 150), (176, 176, 174))
BROWNS: tuple[RGB, ...] = ((112, 84, 60), (140, 106, 76), (90, 70, 56), (164, 132, 98))
GREENS: tuple[RGB, ...] = ((76, 112, 58), (98, 130, 66), (62, 96, 60), (120, 138, 72))
HAYS: tuple[RGB, ...] = ((158, 142, 84), (178, 162, 102), (146, 126, 82))
BRICKS: tuple[RGB, ...] = ((158, 88, 70), (178, 120, 92), (136, 74, 64))
PALES: tuple[RGB, ...] = ((206, 196, 176), (220, 214, 204), (188, 194, 200))
CARS: tuple[RGB, ...] = (
    (40, 78, 160),
    (30, 108, 120),
    (172, 38, 42),
    (228, 228, 226),
    (150, 156, 162),
    (206, 164, 52),
    (30, 32, 38),
)
SHIRTS: tuple[RGB, ...] = (
    (192, 46, 42),
    (216, 116, 48),
    (224, 178, 60),
    (196, 70, 112),
    (232, 224, 214),
    (48, 96, 168),
)
TROUSERS: tuple[RGB, ...] = ((42, 50, 84), (32, 32, 42), (58, 74, 112), (104, 88, 74))
POLES: tuple[RGB, ...] = ((50, 54, 60), (68, 72, 78), (50, 54, 60), (98, 72, 52))
FENCES: tuple[RGB, ...] = ((150, 112, 74), (122, 88, 58), (230, 228, 220), (104, 76, 54))
AUTUMN: tuple[RGB, ...] = ((176, 112, 52), (158, 76, 48), (186, 148, 66))

# top of the sky, sky at the horizon, clouds, light on everything (gain of R, G, B)
WEATHERS: tuple[tuple[RGB, RGB, RGB, tuple[float, float, float]], ...] = (
    ((74, 130, 196), (186, 212, 232), (248, 248, 248), (1.06, 1.03, 0.96)),  # clear
    ((120, 160, 200), (206, 214, 214), (236, 236, 238), (1.0, 1.0, 1.0)),  # fair
    ((134, 138, 144), (182, 184, 186), (206, 208, 210), (0.90, 0.92, 0.95)),  # overcast
    ((92, 96, 104), (150, 152, 154), (122, 124, 130), (0.84, 0.86, 0.90)),  # rain
    ((96, 110, 160), (244, 178, 118), (250, 200, 160), (1.10, 0.93, 0.78)),  # sunset
    ((150, 126, 112), (214, 180, 144), (226, 204, 180), (1.04, 0.96, 0.84)),  # haze
    ((54, 64, 104), (156, 136, 152), (120, 108, 132), (0.78, 0.78, 0.90)),  # dusk
)

WEATHER_ODDS = (0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6)


def shift(colour: Sequence[float], by: Sequence[float] | float) -> RGB:
    steps = [by] * 3 if isinstance(by, (int, float)) else by
    red, green, blue = (int(min(255, max(0, c + s))) for c, s in zip(colour, steps, strict=True))
    return red, green, blue


def mix(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
