from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[2].parent / "shared"))


@pytest.fixture(scope="session")
def imagenet_file() -> Path:
    path = SHARED / "weights" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    if not path.is_file():
        pytest.skip("the published TFLite files are not here")
    return path
