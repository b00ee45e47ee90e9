"""What the page shows of a segmentation: the pictures of the before/after slider, and the legend."""

from __future__ import annotations

import base64
import html
import io
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.app.work import Scores, Upload, confidence, shares
from atrous.data.labels import Labels
from atrous.predict import Segmentation
from atrous.visualize import VIEWS as ALL_VIEWS
from atrous.visualize import in_palette, overlay

Picture = NDArray[np.uint8]

VIEWS = ("overlay", "outline", "mask")


def before_after(
    upload: Upload, result: Segmentation, view: str = "overlay", opacity: float = 0.55
) -> tuple[Picture, Picture]:
    """The picture, and its classes: over it, or alone."""
    labels = shown_labels(result)
    if view == "overlay":
        return upload.image, overlay(upload.image, result.labels, labels, opacity)
    return upload.image, ALL_VIEWS[view](upload.image, result.labels, labels)


def shown_labels(result: Segmentation) -> Labels:
    """The classes in colours that stay apart, for colour-blind people too."""
    return in_palette(result.classes, "safe")


def hover_picture(result: Segmentation) -> Picture:
    """(H, W, 3) for page.js: the class as red + 256 green, and its probability as blue / 255."""
    labels = result.labels.astype(np.uint16)
    blue = (confidence(result) * 255).round()
    return np.stack([labels & 255, labels >> 8, blue], axis=-1).astype(np.uint8)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "&lt; 0.1 %"


def legend(scores: Scores, result: Segmentation) -> str:
    """HTML: the classes with their shares; for page.js, what is at each pixel."""
    palette = [f"rgb{tuple(colour)}" for colour in shown_labels(result).palette]
    rows = "".join(
        f'<li data-class="{share.number}"><span class="swatch" style="background:{palette[share.number]}"></span>'
        f'<span class="name">{html.escape(share.name)}</span>'
        f'<span class="bar"><i style="width:{100 * share.share:.1f}%;background:{palette[share.number]}"></i></span>'
        f'<span class="share">{percent(share.share)}</span></li>'
        for share in shares(result)
    )
    file = io.BytesIO()
    Image.fromarray(hover_picture(result)).save(file, "PNG", compress_level=1)
    names = html.escape(json.dumps(list(result.names)))
    colours = html.escape(json.dumps(palette))
    return (
        f'<div class="legend" data-names="{names}" data-colours="{colours}" '
        f'data-pixels="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
        f'<p><b>{html.escape(scores.model)}</b> <span class="protocol">{html.escape(scores.protocol)}</span></p>'
        f"<ol>{rows}</ol></div>"
    )
