"""Labels straight from coarse scores, against the scores at full size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atrous.kernels import upsampling
from atrous.kernels.upsampling import highest, resized_labels, source_points
from atrous.layers import AlignCorners, resize
from atrous.predict import Predictor

SHAPES = [
    (5, 7, 9, 50, 61),
    (21, 33, 33, 513, 513),
    (150, 17, 23, 129, 177),
    (300, 9, 9, 70, 40),
    (3, 1, 1, 9, 9),  # one value
    (4, 30, 30, 11, 13),  # smaller than the grid
    (6, 8, 8, 8, 8),
    (1, 3, 4, 20, 30),
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("align_corners", [False, True, "asymmetric"])
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_are_those_of_the_full_scores(
    shape: tuple[int, ...], align_corners: AlignCorners, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, h, w, *size = shape
    if compiled:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(upsampling.compiled_loop, "available", lambda: False)
    for logits in (torch.randn(classes, h, w), torch.randn(classes, h, w).cumsum(1).cumsum(2) / 4):
        full = resize(logits[None], size, align_corners)[0]
        labels = resized_labels(logits, size, align_corners)
        assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int16)
        wrong = labels.long() != full.argmax(0)
        behind = full.amax(0) - full.gather(0, labels.long()[None])[0]
        assert float(behind[wrong].max() if wrong.any() else 0) < 1e-5, "more than a tie"
        assert int(wrong.sum()) <= 2


@pytest.mark.parametrize("align_corners", [False, True])
def test_source_points_are_torchs(align_corners: bool) -> None:
    for size, source in ((50, 7), (513, 65), (9, 30), (1, 5), (5, 1)):
        before, behind, share = source_points(size, source, align_corners)
        line = torch.randn(1, 1, source, 1)
        expected = resize(line, (size, 1), align_corners)[0, 0, :, 0].numpy()
        values = line[0, 0, :, 0].numpy()
        np.testing.assert_allclose(values[before] * (1 - share) + values[behind] * share, expected, atol=1e-5)


def test_same_for_any_number_of_threads() -> None:
    pytest.importorskip("numba")
    logits = torch.randn(21, 40, 50)
    one = resized_labels(logits, (320, 400))
    torch.set_num_threads(3)
    try:
        assert torch.equal(resized_labels(logits, (320, 400)), one)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    "options", [{}, {"flip": True}, {"scales": (0.5, 1.0)}, {"mode": "slide", "size": (32, 32)}]
)
def test_predictor_gives_the_labels_of_its_scores(options: dict[str, object], scene_checkpoint: Path) -> None:
    predictor = Predictor(scene_checkpoint, **options)  # type: ignore[arg-type]
    for size in ((47, 61), (1, 1), (64, 80)):
        image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, *size), dtype=np.uint8))
        expected = predictor.scores(image).argmax(0)
        assert len(expected.unique()) > 1 or size == (1, 1)
        assert int((predictor.label_map(image).long() != expected).sum()) == 0


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 5, 7), torch.uint8), ((2, 256, 4, 3), torch.uint8), ((257, 3, 2), torch.int16)],
)
def test_highest_is_argmax(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Also where scores tie: of small integers many do."""
    torch.manual_seed(0)
    scores = torch.randint(0, 4 if shape[-3] < 100 else 400, shape).float()
    channels_last = scores.movedim(-3, -1).contiguous().movedim(-1, -3)
    for labels in (highest(scores), highest(channels_last), highest(channels_last.double())):
        assert labels.dtype == dtype
        assert torch.equal(labels.long(), torch.from_numpy(scores.numpy().argmax(-3)))
