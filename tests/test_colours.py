"""The safe palette, judged by another colour-blind simulation and another colour space than those that made it:
Machado, Oliveira and Fernandes 2009 (severity 1, their table 1) and CIELAB by scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from atrous.colours import OKABE_ITO, Colour, safe_palette
from atrous.data.labels import CAMVID, CITYSCAPES, VOC

MACHADO = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def least_distance(colours: tuple[Colour, ...], seen_by: str) -> float:
    """The least CIELAB distance of two of the colours."""
    encoded = np.array(colours) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ MACHADO[seen_by].T, 0, 1)
    back: NDArray[np.float64] = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(back[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(apart[np.triu_indices(len(colours), 1)].min())


@pytest.mark.parametrize("seen_by", list(MACHADO))
@pytest.mark.parametrize(("count", "least"), [(7, 17), (12, 17), (20, 10), (30, 7.5), (150, 2.9)])
def test_no_two_colours_look_alike(count: int, least: float, seen_by: str) -> None:
    assert least_distance(safe_palette(count), seen_by) > least


@pytest.mark.parametrize("labels", [VOC, CAMVID, CITYSCAPES], ids=["voc", "camvid", "cityscapes"])
def test_it_is_better_than_the_data_sets_own(labels: object) -> None:
    """Whom it is for: the two nearest classes are at least twice as far apart as in the palettes of the field."""
    own = labels.palette  # type: ignore[attr-defined]
    for seen_by in ("protanopia", "deuteranopia"):
        assert least_distance(safe_palette(len(own), 0), seen_by) > 2 * least_distance(own, seen_by)


def test_it_goes_on_from_okabe_and_ito_and_leaves_the_background_black() -> None:
    assert safe_palette(3) == OKABE_ITO[:3]
    assert safe_palette(9)[:7] == OKABE_ITO
    assert safe_palette(4, 1) == (OKABE_ITO[0], (0, 0, 0), *OKABE_ITO[1:3])
    assert safe_palette(30)[:12] == safe_palette(12)  # a class keeps its colour when classes are added
    assert safe_palette(0) == () and safe_palette(1, 0) == ((0, 0, 0),)
    many = safe_palette(600)
    assert len(set(many)) == 256 and many[256:512] == many[:256]
