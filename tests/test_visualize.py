"""Views of a segmentation: which pixels change, and into what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atrous.cli import main
from atrous.colours import safe_palette
from atrous.data.labels import Labels
from atrous.visualize import (
    STYLE,
    VIEWS,
    Style,
    background,
    colourize,
    draw,
    in_palette,
    outline,
    overlay,
    side_by_side,
)

LABELS = Labels(("background", "cat", "dog"), ((0, 0, 0), (200, 40, 0), (0, 90, 220)))
MASK = np.zeros((40, 60), np.uint8)
MASK[5:35, 10:30] = 1
MASK[5:35, 30:50] = 2
MASK[:3] = 255
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def near_border(mask: NDArray[np.uint8], reach: int) -> NDArray[np.bool_]:
    """By brute force: another label within `reach`, max(|dx|, |dy|)."""
    found = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        around = mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        found[y, x] = (around != mask[y, x]).any()
    return found


def test_an_overlay_leaves_background_and_void_as_they_are() -> None:
    shown = overlay(IMAGE, MASK, LABELS, opacity=0.25)
    thing = (MASK == 1) | (MASK == 2)
    np.testing.assert_array_equal(shown[~thing], IMAGE[~thing])
    inner = thing & ~near_border(MASK, 1)
    expected = 0.75 * IMAGE + 0.25 * np.array([*LABELS.palette, (0, 0, 0)])[np.minimum(MASK, 3)]
    assert np.abs(shown[inner] - expected[inner]).max() <= 0.5
    border = thing & near_border(MASK, 1)
    assert np.abs(shown[border] - (expected[border] / 2 + 127.5)).max() <= 1.5


def test_an_outline_draws_the_borders_alone() -> None:
    shown = outline(IMAGE, MASK, LABELS)
    thing = (MASK == 1) | (MASK == 2)
    line, around = near_border(MASK, 2), near_border(MASK, 3)
    np.testing.assert_array_equal(shown[~(thing & around)], IMAGE[~(thing & around)])
    np.testing.assert_array_equal(shown[thing & line], colourize(MASK, LABELS)[thing & line])
    rim = thing & around & ~line
    np.testing.assert_array_equal(shown[rim], IMAGE[rim] // 3)


def test_side_by_side_is_both() -> None:
    shown = side_by_side(IMAGE, MASK, LABELS)
    np.testing.assert_array_equal(shown[:, :60], IMAGE)
    np.testing.assert_array_equal(shown[:, -60:], overlay(IMAGE, MASK, LABELS))


def test_the_palette_is_of_the_style() -> None:
    bare = Style(view="mask", names=False, legend=False)
    safe = draw(IMAGE, MASK, LABELS, bare)
    assert tuple(safe[20, 20]) == safe_palette(3, 0)[1]
    assert tuple(safe[38, 2]) == (0, 0, 0)
    np.testing.assert_array_equal(
        draw(IMAGE, MASK, LABELS, replace(bare, palette="data")), colourize(MASK, LABELS)
    )
    assert in_palette(LABELS, "data") is LABELS
    assert in_palette(Labels.named(["a", "b"]), "safe").palette == safe_palette(2)
    assert background(Labels.named(["sky", " Background"])) == 1 and background(Labels.named(["sky"])) is None


def test_a_legend_tells_the_classes_of_the_picture() -> None:
    mask = np.zeros((100, 150), np.uint8)
    mask[:30] = 1
    image = np.full((100, 150, 3), 9, np.uint8)
    style = Style(palette="data", names=False)
    shown = draw(image, mask, LABELS, style)
    strip = shown[100:]
    np.testing.assert_array_equal(shown[:100], draw(image, mask, LABELS, replace(style, legend=False)))
    assert (strip == LABELS.palette[1]).all(-1).sum() > 80
    assert not (strip == LABELS.palette[2]).all(-1).any(), "no dog there"
    assert not (strip == LABELS.palette[0]).all(-1).any(), "background has no colour in an overlay"
    assert (draw(image, mask, LABELS, replace(style, view="mask"))[100:] == 0).all(-1).sum() > 80


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 1), (3, 7), (23, 20000), (130, 90)])
@pytest.mark.parametrize("view", list(VIEWS))
def test_any_size_can_be_drawn(size: tuple[int, int], view: str) -> None:
    image = np.full((*size, 3), 100, np.uint8)
    mask = (np.arange(size[0] * size[1]).reshape(size) % 7 % 3).astype(np.uint8)
    shown = draw(image, mask, LABELS, Style(view=view))  # type: ignore[arg-type]
    assert shown.dtype == np.uint8 and shown.shape[0] >= size[0] and shown.shape[1] >= size[1]
    bare = VIEWS[view](image, mask, in_palette(LABELS, "safe"))
    if min(size) < 22:  # neither names nor a legend can be read there
        np.testing.assert_array_equal(shown, bare)
    else:
        assert (shown.shape[0] > size[0]) == (bare.shape[1] >= 100 and size[0] > 23)


def test_a_small_picture_is_not_lost_above_its_legend() -> None:
    """Nine classes, one under the other, would be twice as high as a picture of 96 x 128."""
    labels = Labels.named([f"a long name {i}" for i in range(9)])
    mask = (np.arange(96 * 128).reshape(96, 128) // 32 % 9).astype(np.uint8)
    assert draw(np.zeros((96, 128, 3), np.uint8), mask, labels, STYLE).shape == (96, 128, 3)


def test_names_and_legends_of_any_words() -> None:
    """Empty and too long: no name in the region; a line's break: a blank. The legend has all four."""
    words = ["", "two\nlines", "лес 森", "x" * 400]
    labels = Labels.named(words)
    mask = np.arange(4, dtype=np.uint8).repeat(60)[None].repeat(200, 0)
    image = np.zeros((200, 240, 3), np.uint8)
    for view in VIEWS:
        style = Style(view=view)  # type: ignore[arg-type]
        shown, bare = draw(image, mask, labels, style), draw(image, mask, labels, replace(style, names=False))
        written = (shown != bare).any(-1)[:200, -240:].reshape(200, 4, 60).any((0, 2))
        assert written.tolist() == [False, True, True, False]
        one_line = Labels.named([word.replace("\n", " ") for word in words])
        np.testing.assert_array_equal(shown, draw(image, mask, one_line, style))
        for colour in in_palette(labels, "safe").palette:
            assert (shown[200:] == colour).all(-1).sum() > 100, "no swatch"


@pytest.mark.parametrize("view", list(VIEWS))
def test_predict_writes_the_view_under_its_name(
    scene_checkpoint: Path, photo: Path, tmp_path: Path, view: str
) -> None:
    from atrous.predict import Predictor

    out = tmp_path / "out"
    main(
        [
            *("predict", str(scene_checkpoint), str(photo), "--out", str(out)),
            *("--view", view, "--palette", "data", "--no_legend"),
        ]
    )
    assert sorted(path.name for path in out.glob("*.png")) == sorted(["photo.png", f"photo_{view}.png"])
    image = np.asarray(Image.open(photo).convert("RGB"))
    predictor = Predictor(scene_checkpoint)
    style = Style(view=view, palette="data", legend=False)  # type: ignore[arg-type]
    expected = draw(image, predictor.predict(photo).labels, predictor.labels, style)
    np.testing.assert_array_equal(np.asarray(Image.open(out / f"photo_{view}.png")), expected)
