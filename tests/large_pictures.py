"""A picture for the tests of prediction by windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.predict import Predictor

tifffile = pytest.importorskip("tifffile")


HEIGHT, WIDTH = 110, 173


ONE_PART, PARTS = 2**30, 9 * 4 * 24 * 110  # bytes held


def pixels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, values: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(
        path, values, photometric="rgb", tile=(32, 48), compression="zlib", metadata=None, **options
    )


def predictor(checkpoint: Path, **options: Any) -> Predictor:
    return Predictor(checkpoint, **({"mode": "slide", "size": (48, 64), "device": "cpu"} | options))
