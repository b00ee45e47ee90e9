"""A large picture whose prediction is killed: it goes on, to the same bytes, and only what is its own is taken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import atrous
from atrous.cli import main
from atrous.errors import InputError
from atrous.large import segment_large
from atrous.large_job import Job
from large_pictures import PARTS, pixels, predictor, tifffile, write

KILLED = """
import os, signal, sys, torch
from pathlib import Path
from atrous.large import segment_large
from atrous.large_job import Job
from atrous.predict import Predictor
torch.set_num_threads(1)
def progress(done, of, title):
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
model = Predictor(sys.argv[1], mode="slide", size=(48, 64), device="cpu")
segment_large(model, Path(sys.argv[2]), Path(sys.argv[3]), "out", held=int(sys.argv[5]), resume=True, progress=progress)
"""


def test_killed_and_resumed_the_bytes_are_the_same(
    scene_checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    whole = segment_large(predictor(scene_checkpoint), picture, tmp_path / "whole", "out", held=PARTS)
    words = [sys.executable, "-c", KILLED, str(scene_checkpoint), str(picture), str(tmp_path / "cut")]
    killed = subprocess.run([*words, "13", str(PARTS)], check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "cut" / ".out.tif.partial"
    note = json.loads((folder / "job.json").read_text())
    assert (note["part"], note["row"]) != (0, 0), "killed before anything was kept"
    assert not (tmp_path / "cut" / "out.tif").exists()
    model, options = predictor(scene_checkpoint), {"held": PARTS}
    with pytest.raises(InputError, match="a prediction that was stopped; go on with --resume"):
        segment_large(model, picture, tmp_path / "cut", "out", **options)
    other = predictor(scene_checkpoint, overlap=0.5)
    with pytest.raises(InputError, match="begun with another protocol"):
        segment_large(other, picture, tmp_path / "cut", "out", resume=True, **options)
    with pytest.raises(InputError, match="begun with another checkpoint"):
        segment_large(
            model, picture, tmp_path / "cut", "out", resume=True, settings={"checkpoint": "b"}, **options
        )
    seen: list[int] = []
    resumed = segment_large(
        model, picture, tmp_path / "cut", "out", resume=True, progress=lambda *a: seen.append(a[1]), **options
    )
    full: list[int] = []
    for a, b in zip(whole, resumed, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert not folder.exists()
    segment_large(model, picture, tmp_path / "again", "out", progress=lambda *a: full.append(a[1]), **options)
    assert seen[0] < full[0], "it began anew"
    segment_large(model, picture, tmp_path / "cut", "out", resume=True, progress=lambda *a: 1 / 0, **options)


def test_a_job_killed_while_it_puts_the_results_in_place(
    scene_checkpoint: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = predictor(scene_checkpoint)
    replace = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target.suffix == ".tif":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die)
        segment_large(model, picture, picture.parent, "out")
    assert (picture.parent / "out_overview.png").exists()
    labels, _ = segment_large(model, picture, picture.parent, "out", resume=True)
    np.testing.assert_array_equal(tifffile.imread(labels), model.predict(pixels()).labels)


def test_only_its_own_label_map_is_taken_for_finished(
    scene_checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    """Not one of another overlap, of another picture of that name, any other file, or the picture itself."""
    model, out = predictor(scene_checkpoint), tmp_path / "out"
    target, _ = segment_large(model, picture, out, "big")
    before = target.read_bytes()
    segment_large(model, picture, out, "big", resume=True, progress=lambda *a: 1 / 0)
    write(tmp_path / "other.tif", pixels()[::-1])
    for other, file in ((predictor(scene_checkpoint, overlap=0.5), picture), (model, tmp_path / "other.tif")):
        with pytest.raises(InputError, match=r"big\.tif: exists already"):
            segment_large(other, file, out, "big", resume=True)
    with pytest.raises(InputError, match=r"big\.tif: is a picture to predict"):
        segment_large(model, picture, picture.parent, "big", resume=True)
    (out / "text.tif").write_text("precious")
    with pytest.raises(InputError, match=r"text\.tif: exists already"):
        segment_large(model, picture, out, "text", resume=True)
    assert target.read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["big.tif", "big_overview.png", "text.tif"]


@pytest.mark.parametrize("where", ["atrous.large_job.shutil.rmtree", "atrous.record.Record.finish"])
def test_a_job_killed_when_the_results_are_in_place(
    where: str,
    scene_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before what it needed is gone, and before the record says that it is finished."""

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    words = [
        "predict",
        str(scene_checkpoint),
        str(picture),
        "--size",
        "48",
        "64",
        "--large",
        "--out",
        str(out),
    ]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(where, die)
        main(words)
    (out / ".big.tif.partial" / "labels.raw").unlink(missing_ok=True)
    before = (out / "big.tif").stat().st_mtime_ns
    main([*words, "--resume"])
    assert (out / "big.tif").stat().st_mtime_ns == before
    main([*words, "--resume"])
    assert "1 of 1 pictures" in (said := capsys.readouterr().out)
    assert "1 of them by an earlier job" in said
    assert sorted(path.name for path in out.iterdir()) == ["big.tif", "big_overview.png", "predictions.jsonl"]
    expected = predictor(scene_checkpoint).predict(pixels()).labels
    np.testing.assert_array_equal(tifffile.imread(out / "big.tif"), expected)


def test_command_does_not_go_on_with_other_weights(
    scene_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:
    """Trained on at the same path."""
    model = atrous.load(scene_checkpoint)
    atrous.save(model, path := tmp_path / "model.safetensors")
    words = ["predict", str(path), str(picture), "--device", "cpu", "--size", "48", "64", "--large"]
    words += ["--out", str(tmp_path / "out")]

    def stop(self: Job, part: int, row: int) -> None:
        advance(self, part, row)
        raise KeyboardInterrupt

    advance = Job.advance
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Job, "advance", stop)
        main(words)
    assert capsys.readouterr().err == "stopped\n"
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    atrous.save(model, path)
    assert ".big.tif.partial: this prediction was begun with another checkpoint" in refused(
        [*words, "--resume"]
    )
    main([*words, "--overwrite"])
    expected = predictor(path).predict(pixels()).labels
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "big.tif"), expected)
