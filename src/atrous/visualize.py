"""Pictures for people: class colours over the photo, a legend, and panels side by side. Arrays are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.data.labels import Labels

Picture = NDArray[np.uint8]

VOID_COLOUR = (224, 224, 192)  # VOC's colour of label 255
INK, PAPER = (30, 30, 30), (255, 255, 255)


def colourize(mask: NDArray[Any], labels: Labels) -> Picture:
    """(H, W) class indices -> (H, W, 3) in the palette's colours; what is no class gets VOC's void colour."""
    table = np.array([*labels.palette, VOID_COLOUR], np.uint8)
    return table[np.where(mask < len(labels), mask, len(labels))]


def overlay(image: Picture, mask: NDArray[Any], labels: Labels, opacity: float = 0.55) -> Picture:
    """The class colours over the picture (H, W, 3), with the boundaries between classes drawn light."""
    mixed = image * (1 - opacity) + colourize(mask, labels) * opacity
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    mixed[edge] = 0.5 * mixed[edge] + 127.5
    return mixed.round().astype(np.uint8)


def panel(
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str],
    labels: Labels | None = None,
    used: Sequence[int] | None = None,
    height: int = 180,
) -> Picture:
    """Rows of pictures under column titles, with a legend of the classes in `used` (all by default) below."""
    gap, font = 8, ImageFont.load_default(16)
    cells = [[_fit(picture, height) for picture in row] for row in rows]
    widths = [max(row[i].shape[1] for row in cells) for i in range(len(titles))]
    width = sum(widths) + gap * (len(titles) + 1)
    legend = (
        _legend(labels, range(len(labels)) if used is None else used, width - 2 * gap) if labels else None
    )
    top = 30
    total = top + len(rows) * (height + gap) + (legend.height + gap if legend else 0)
    sheet = Image.new("RGB", (width, total), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(cells):
        x = gap
        for column, cell in enumerate(line):
            if row == 0:
                draw.text((x, 6), titles[column], INK, font)
            sheet.paste(Image.fromarray(cell), (x, top + row * (height + gap)))
            x += widths[column] + gap
    if legend:
        sheet.paste(legend, (gap, total - legend.height - gap))
    return np.asarray(sheet)


def _fit(picture: Picture, height: int) -> Picture:
    scale = height / picture.shape[0]
    size = (max(1, round(picture.shape[1] * scale)), height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _legend(labels: Labels, used: Sequence[int] | range, width: int) -> Image.Image:
    font, line, swatch = ImageFont.load_default(14), 22, 16
    places, x, y = [], 0, 0
    for index in used:
        need = swatch + 6 + int(font.getlength(labels.names[index])) + 18
        if x and x + need > width:
            x, y = 0, y + line
        places.append((index, x, y))
        x += need
    sheet = Image.new("RGB", (width, y + line), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, x, y in places:
        draw.rectangle((x, y + 2, x + swatch, y + 2 + swatch), labels.palette[index], INK)
        draw.text((x + swatch + 6, y + 1), labels.names[index], INK, font)
    return sheet
