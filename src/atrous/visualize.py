"""Pictures for people: class colours over the photo in several views, legends, and panels. Arrays are RGB uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.boundary import bands
from atrous.colours import safe_palette
from atrous.data.labels import Labels
from atrous.lettering import INK, PAPER, legend, letter_size, shares, write_names

Picture = NDArray[np.uint8]
View = Literal["overlay", "mask", "side-by-side", "outline"]
Palette = Literal["safe", "data"]

VOID_COLOUR = (224, 224, 192)  # VOC's colour of label 255
LEGEND_WIDTH = 100  # pixels: a narrower picture has no room for one


@dataclass(frozen=True)
class Style:
    """How a segmentation is shown.

    view: "overlay", class colours over the photo; "mask", the colours alone; "side-by-side", photo and overlay;
    "outline", the photo with the borders of the regions in their colours.
    palette: "safe", which also people with red-green blindness can tell apart; "data", the data set's own colours.
    names: written on the larger regions. legend: a strip below with the classes and their shares of the picture.
    """

    view: View = "overlay"
    palette: Palette = "safe"
    names: bool = True
    legend: bool = True


STYLE = Style()


def draw(image: Picture, mask: NDArray[Any], labels: Labels, style: Style = STYLE) -> Picture:
    """A segmentation (H, W) of a picture (H, W, 3), drawn in a `style`: (H' >= H, W' >= W, 3)."""
    labels = in_palette(labels, style.palette)
    picture, empty = VIEWS[style.view](image, mask, labels), background(labels)
    if style.names:
        left, right = picture[:, : -mask.shape[1]], picture[:, -mask.shape[1] :]
        right = write_names(right, mask, labels, [] if empty is None else [empty])
        picture = np.hstack([left, right])
    if style.legend:
        if empty is not None and style.view != "mask":  # it is the photo there, and no colour
            labels = replace(labels, palette=(*labels.palette[:empty], PAPER, *labels.palette[empty + 1 :]))
        picture = with_legend(picture, mask, labels)
    return picture


def in_palette(labels: Labels, palette: Palette) -> Labels:
    """The same classes in the colours of `Style.palette`."""
    if palette == "data":
        return labels
    return replace(labels, palette=safe_palette(len(labels), background(labels)))


def background(labels: Labels) -> int | None:
    """The class that stands for nothing: its pixels stay the photo in an overlay. None where there is none."""
    names = [name.strip().lower() for name in labels.names]
    return names.index("background") if "background" in names else None


def colourize(mask: NDArray[Any], labels: Labels) -> Picture:
    """(H, W) class indices -> (H, W, 3) in the palette's colours; what is no class gets VOC's void colour."""
    return np.array([*labels.palette, VOID_COLOUR], np.uint8)[_classes(mask, labels)]


def overlay(image: Picture, mask: NDArray[Any], labels: Labels, opacity: float = 0.5) -> Picture:
    """The class colours over the picture (H, W, 3), with the borders of regions in lighter ones.

    Background and what is no class stay the photo.
    """
    weight = _shown(labels, opacity)[_classes(mask, labels)]
    mixed = _mix(image, colourize(mask, labels), weight[..., None])
    border = _borders(mask, 1) & (weight > 0)
    mixed[border] = mixed[border] // 2 + 127
    return mixed


def outline(image: Picture, mask: NDArray[Any], labels: Labels) -> Picture:
    """The picture (H, W, 3) with the borders of the regions in their class colours, on a dark rim to be seen on any.

    Background has no border of its own.
    """
    shown, classes = _shown(labels, 1.0), _classes(mask, labels)
    drawn = _mix(image, colourize(mask, labels), np.where(_borders(mask, 2), shown[classes], 0)[..., None])
    dark = _borders(mask, 3) & ~_borders(mask, 2) & (shown[classes] > 0)
    drawn[dark] = drawn[dark] // 3
    return drawn


def side_by_side(image: Picture, mask: NDArray[Any], labels: Labels) -> Picture:
    """The picture and, right of it, the overlay: (H, 2 W + gap, 3)."""
    gap = np.full((image.shape[0], max(1, image.shape[1] // 80), 3), PAPER[0], np.uint8)
    return np.hstack([image, gap, overlay(image, mask, labels)])


VIEWS: dict[str, Callable[[Picture, NDArray[Any], Labels], Picture]] = {
    "overlay": overlay,
    "mask": lambda image, mask, labels: colourize(mask, labels),
    "side-by-side": side_by_side,
    "outline": outline,
}


def with_legend(picture: Picture, mask: NDArray[Any], labels: Labels) -> Picture:
    """The picture over a legend of the classes in `mask`, the larger ones first.

    The picture as it is where that is too narrow, or lower than the legend would be.
    """
    width = picture.shape[1]
    size = letter_size(*mask.shape)
    if width < LEGEND_WIDTH or not size:
        return picture
    share = shares(mask, len(labels))
    used = [int(i) for i in np.argsort(-share, kind="stable") if share[i] > 0]
    size = max(12, round(0.8 * size))
    pad = size // 2
    strip = np.pad(
        legend(labels, used, width - 2 * pad, size, [float(s) for s in share]),
        ((pad, pad), (pad, pad), (0, 0)),
        constant_values=PAPER[0],
    )
    return picture if len(strip) > len(picture) else np.vstack([picture, strip])


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
    strip = legend(labels, range(len(labels)) if used is None else used, width - 2 * gap) if labels else None
    top = 30
    total = top + len(rows) * (height + gap) + (len(strip) + gap if strip is not None else 0)
    sheet = Image.new("RGB", (width, total), PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(cells):
        x = gap
        for column, cell in enumerate(line):
            if row == 0:
                pen.text((x, 6), titles[column], INK, font)
            sheet.paste(Image.fromarray(cell), (x, top + row * (height + gap)))
            x += widths[column] + gap
    if strip is not None:
        sheet.paste(Image.fromarray(strip), (gap, total - len(strip) - gap))
    return np.asarray(sheet)


def _classes(mask: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """The mask with one number, that of the classes, for all that is no class."""
    return np.where(mask < len(labels), mask, len(labels))


def _shown(labels: Labels, opacity: float) -> NDArray[np.float32]:
    """How strong each class is drawn, and what is no class."""
    strength = np.full(len(labels) + 1, opacity, np.float32)
    strength[-1] = 0
    if (empty := background(labels)) is not None:
        strength[empty] = 0
    return strength


def _mix(image: Picture, colours: Picture, weight: NDArray[Any]) -> Picture:
    """image (1 - weight) + colours weight, rounded."""
    mixed = image + (colours.astype(np.float32) - image) * weight
    return (mixed + 0.5).astype(np.uint8)


def _borders(mask: NDArray[Any], thickness: int) -> NDArray[np.bool_]:
    """Where another label is near: `thickness` pixels on a small picture, more on a large one."""
    scale = max(1.0, min(mask.shape) / 480)
    (near,) = bands(mask, [max(1, round(thickness * scale))])
    return near


def _fit(picture: Picture, height: int) -> Picture:
    scale = height / picture.shape[0]
    size = (max(1, round(picture.shape[1] * scale)), height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
