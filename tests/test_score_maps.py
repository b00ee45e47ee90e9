"""Scores at full size and their sums, against torch's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from atrous import score_maps
from atrous.kernels import compiled_loop
from atrous.kernels.upsampling import highest
from atrous.layers import AlignCorners, resize
from atrous.score_maps import GrownScores, add_resized

pytest.importorskip("numba")

SHAPES = [  # classes, grid, padded picture, picture
    (5, 7, 9, 50, 61, 50, 61),
    (21, 33, 33, 513, 513, 513, 513),
    (150, 17, 23, 129, 177, 120, 170),
    (300, 9, 9, 70, 40, 69, 40),
    (3, 1, 1, 9, 9, 9, 9),
    (4, 30, 30, 11, 13, 11, 13),  # smaller than the grid
    (6, 8, 8, 8, 8, 7, 3),
    (1, 3, 4, 20, 30, 1, 1),
    (8, 5, 6, 33, 34, 33, 34),
    (16, 5, 6, 33, 34, 30, 31),
]


@pytest.mark.parametrize("align_corners", [False, True, "asymmetric"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_as_near_as_torchs(
    shape: tuple[int, ...], align_corners: AlignCorners, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, h, w, *sizes = shape
    torch.manual_seed(classes)
    logits = 20 * torch.randn(2, classes, h, w)
    grown, (height, width) = (sizes[0], sizes[1]), (sizes[2], sizes[3])
    for softmax in (True, False):
        scores = GrownScores(logits, grown, (height, width), align_corners, softmax)
        found = scores.made()
        with monkeypatch.context() as patch:
            patch.setattr(compiled_loop, "available", lambda: False)
            torchs = scores.made()
        assert found.permute(0, 2, 3, 1).is_contiguous()
        exact = resize(logits.double(), grown, align_corners)
        exact = (exact.softmax(1) if softmax else exact)[..., :height, :width]
        assert (found - exact).abs().max() <= 2 * (torchs - exact).abs().max() + 1e-6
        assert torch.equal(highest(found), highest(found.contiguous()))
    half = GrownScores(logits.bfloat16(), grown, (height, width), align_corners).made()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.sum(1), torch.ones(2, height, width), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (40, 53), (200, 211)])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_in_bands_is_the_view(
    shape: tuple[int, ...], size: tuple[int, int], flipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, h, w, *sizes = shape
    generator = torch.Generator().manual_seed(classes)
    scores = GrownScores(
        torch.randn(2, classes, h, w, generator=generator), (sizes[0], sizes[1]), (sizes[2], sizes[3])
    )
    total = torch.rand(2, *size, classes, generator=generator).permute(0, 3, 1, 2)
    view = scores.made()
    expected = total + resize(view.flip(-1) if flipped else view, size)
    for numbers in (1, 3 * classes * sizes[3], 2**30):
        monkeypatch.setattr(score_maps, "BAND", numbers)
        found = total.clone()
        assert add_resized(found, scores, size, flipped) is found
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    of_nothing = add_resized(None, scores, size, flipped)
    torch.testing.assert_close(of_nothing, expected - total, rtol=0, atol=2e-6)


@pytest.mark.parametrize("classes", [1, 5, 8, 16, 21, 150])
@pytest.mark.parametrize(
    "sizes", [(9, 13, 30, 41), (30, 41, 17, 23), (8, 9, 8, 9), (1, 1, 5, 4), (7, 1, 1, 6)]
)
@pytest.mark.parametrize("flipped", [False, True])
def test_views_are_added_as_torch_would(classes: int, sizes: tuple[int, ...], flipped: bool) -> None:
    h, w, *size = sizes
    generator = torch.Generator().manual_seed(classes)
    whole = torch.rand(2, h + 2, w + 3, classes, generator=generator).permute(0, 3, 1, 2)
    for scores in (whole[..., :h, :w], whole[..., :h, :w].contiguous()):
        total = torch.rand(2, *size, classes, generator=generator).permute(0, 3, 1, 2)
        expected = total + resize(scores.flip(-1) if flipped else scores, size)
        add_resized(total, scores, size, flipped)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


def test_same_for_any_number_of_threads() -> None:
    scores = GrownScores(torch.randn(1, 21, 40, 50), (320, 400), (320, 400))
    one, view = scores.made(), add_resized(None, scores, (200, 300))
    torch.set_num_threads(3)
    try:
        assert torch.equal(scores.made(), one)
        assert torch.equal(add_resized(None, replace(scores), (200, 300)), view)
    finally:
        torch.set_num_threads(1)
