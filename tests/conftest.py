from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.data import SCENES
from drawn_photos import draw

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


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(words): what `atrous WORDS` says, which must end with 2 and one line. lines: how many; None: any."""

    def run(words: Sequence[str], lines: int | None = 1) -> str:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip()
        found = error.splitlines()
        assert all(line.startswith("atrous: error: ") for line in found), error
        assert lines is None or len(found) == lines, error
        return error

    return run


@pytest.fixture
def pictures_and_masks(tmp_path: Path) -> Path:
    """A folder in no special layout: images/ and masks/, ten of each, in which a bright part is class 1."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(10):
        mask = np.zeros((40, 56), np.uint8)
        mask[:, : 10 + 3 * i] = 1
        pixels = (mask[..., None] * 150 + rng.integers(0, 60, (40, 56, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{i}.jpg")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{number}.png", (24, 32) if number % 3 else (17, 40), seed=number)
    return tmp_path / "photos"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A TIFF that is predicted by windows."""
    from large_pictures import pixels, write

    path = tmp_path / "big.tif"
    write(path, pixels())
    return path
