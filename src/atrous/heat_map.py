"""Heat maps of what a score depends on, with boxes. Pictures are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.lettering import INK, PAPER, Picture

# Dark violet over red to pale yellow, of our own: the OKLab lightness (Ottosson 2020) rises in even steps of 0.133, the
# hue turns from 280 to 460 degrees, and the chroma is the highest that sRGB has there, at most 0.2.
RAMP = np.array(
    [
        (11, 0, 52),
        (55, 0, 113),
        (123, 7, 144),
        (201, 41, 112),
        (255, 98, 59),
        (255, 180, 104),
        (255, 244, 176),
    ],
    np.float64,
)
THEORY, EFFECT = PAPER, (86, 180, 233)  # of boxes; the blue is Okabe and Ito's
LETTERS, STRIP = 13, 42  # pixels


def heat(values: NDArray[Any]) -> Picture:
    """(H, W) values from 0 up -> (H, W, 3): the square root of their share of the greatest, in colours of `RAMP`."""
    share = np.sqrt(values / max(float(values.max()), np.finfo(np.float64).tiny))
    place = share * (len(RAMP) - 1)
    stops = np.arange(len(RAMP))
    channels = [np.interp(place, stops, RAMP[:, channel]) for channel in range(3)]
    return (np.stack(channels, -1) + 0.5).astype(np.uint8)


def field_map(
    values: NDArray[Any],
    centre: tuple[int, int],
    theoretical: int,
    effective: int,
    height: int,
    pools: bool = False,
) -> Picture:
    """A gradient map (H, W) in heat colours, brought to `height`, with squares about `centre` (y, x) of given sides.

    The theoretical one is white, the effective one blue. A strip below, `STRIP` high, says the sides in pixels, and
    with `pools` that the theoretical field is the whole picture, too. (height + STRIP, at least W', 3).
    """
    scale = height / values.shape[0]
    width = max(1, round(scale * values.shape[1]))
    pooled = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    warm = Image.fromarray(heat(np.asarray(pooled)))
    pen, font = ImageDraw.Draw(warm), ImageFont.load_default(LETTERS)
    lines = []
    for name, side, colour in (("theoretical", theoretical, THEORY), ("effective", effective, EFFECT)):
        words = f"{name} {side} px"
        if side > max(values.shape):
            words += ", larger than the picture"
        else:
            _square(pen, centre, side, scale, colour)
            words += " and the whole picture" if pools and name == "theoretical" else ""
        lines.append((words, colour))
    width = max(width, *(round(font.getlength(words)) + LETTERS for words, _ in lines))
    sheet = Image.new("RGB", (width, height + STRIP), INK)
    sheet.paste(warm)
    pen = ImageDraw.Draw(sheet)
    for i, (words, colour) in enumerate(lines):
        pen.text((LETTERS // 2, height + round((i + 0.5) * STRIP / 2)), words, colour, font, anchor="lm")
    return np.asarray(sheet)


def _square(
    pen: ImageDraw.ImageDraw, centre: Sequence[int], side: int, scale: float, colour: tuple[int, int, int]
) -> None:
    (top, left), (bottom, right) = (
        [scale * (at + 0.5 + sign * side / 2) for at in centre] for sign in (-1, 1)
    )
    pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
