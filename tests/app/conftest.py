from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrous.app.work import Limits, Models

LIMITS = Limits(megabytes=2, pixels=1_000_000, side=512)


def sweep() -> None:
    """gradio, its client and playwright leave event loops unclosed, which some later test would be blamed for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    yield
    sweep()


@pytest.fixture(scope="module")
def address(scene_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with two models, served."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        from atrous.app.serving import serve

        twin = tmp_path_factory.mktemp("twin") / "twin.safetensors"
        twin.symlink_to(scene_checkpoint)
        with serve(Models([str(scene_checkpoint), str(twin)], "cpu"), LIMITS, port=0) as found:
            yield str(found)
    sweep()
