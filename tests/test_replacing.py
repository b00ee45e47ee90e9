"""A file that is written beside its place and renamed, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atrous.replacing import left_behind, replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_content_stays_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert (beside.parent, beside.suffix) == (tmp_path, ".json") and beside.name.startswith(".")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["scores.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failure_changes_nothing(tmp_path: Path, error: BaseException, old: str | None) -> None:
    path = tmp_path / "scores.json"
    if old is not None:
        path.write_text(old)
    with pytest.raises(type(error)), replacing(path) as beside:
        beside.write_text("half")
        raise error
    assert names(tmp_path) == ([] if old is None else ["scores.json"])
    assert old is None or path.read_text() == old


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scores.json" / "kept").mkdir(parents=True)
    with pytest.raises(OSError), replacing(tmp_path / "scores.json") as beside:
        beside.write_text("new")
    assert names(tmp_path) == ["scores.json"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_what_a_killed_process_leaves_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state[1].pt"
    code = (
        "import os, signal, sys; from pathlib import Path; from atrous.replacing import replacing\n"
        "with replacing(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    for other in ("state[1].pt", ".hidden-state[1].pt", ".7-state1.pt", ".7-state[1].pt.txt"):
        (tmp_path / other).touch()
    (found,) = left_behind(path)
    assert found.read_text() == "half"
