"""Beside pydensecrf on real pictures; needs it and ../shared/data, and takes minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import mostly_dead, probabilities
from make_table import run_pydensecrf
from PIL import Image

from atrous.crf import DenseCRF

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PICTURES = [
    DATA / "VOCdevkit/VOC2012/JPEGImages/2007_000676.jpg",
    DATA / "VOCdevkit/VOC2012/JPEGImages/2007_000332.jpg",
    DATA / "camvid/val/0016E5_07959.jpg",
]
SETS: list[dict[str, float]] = [
    {},
    {"pos_xy_std": 3, "bi_xy_std": 50, "bi_rgb_std": 10},
    {"bi_w": 10, "bi_xy_std": 80, "bi_rgb_std": 13},
]
TIE = 1e-5  # Q of two labels, of 1: less than what 16 bits resolve


@pytest.mark.slow
@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("classes", [2, 21, 150])
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_agrees_with_pydensecrf(path: Path, classes: int, iterations: int) -> None:
    pytest.importorskip("pydensecrf.densecrf")
    if not path.exists():
        pytest.skip(f"{path} is not here")
    image = np.array(Image.open(path).convert("RGB"))
    for parameters in SETS if classes < 150 else SETS[:1]:
        for scores in (probabilities, mostly_dead):
            p = scores(classes, *image.shape[:2])
            if scores is mostly_dead and classes == 2:
                continue
            a = DenseCRF(**{**parameters, "iter_max": iterations})(image, p)  # type: ignore[arg-type]
            b = run_pydensecrf(image, p, {**parameters, "iter_max": iterations})
            distance = np.abs(a - b).max(0)
            assert (distance <= 1e-3).mean() >= 0.9999
            # with 150 nearly equal classes some pixels are ties to five digits; they are counted apart
            behind = b.max(0) - np.take_along_axis(b, a.argmax(0)[None], 0)[0]
            assert (behind <= TIE).mean() >= 0.9999
            assert (behind == 0).mean() >= (0.9999 if classes < 150 else 0.9998)
