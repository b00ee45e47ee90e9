from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous.checkpoint import Metadata
from atrous.data import SCENES

torch.set_num_threads(1)  # the tests run in one process per core


@pytest.fixture(autouse=True)
def _same_random_numbers_for_every_test() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a person has converted or pulled is neither used nor added to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def scene_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for the nine classes of the scenes, with weights that nobody trained."""
    torch.manual_seed(0)
    model = atrous.create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=9, width=0.5)
    with torch.no_grad():
        model.classifier.weight.mul_(300)  # scores that differ from pixel to pixel
    path = tmp_path_factory.mktemp("checkpoint") / "scenes.safetensors"
    atrous.save(model, path, Metadata(SCENES))
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (41, 57, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
