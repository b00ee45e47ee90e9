"""What `predict` finished is known again: another job goes on, and takes nothing else for its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import atrous
from atrous import segment_files as many
from atrous.cli import main
from atrous.finding import find_pictures
from atrous.predict import Predictor
from atrous.record import Record
from drawn_photos import draw, records
from forkserver import PROCESSES


def test_resume_does_not_redo_and_keeps_to_the_settings(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = f"predict {scene_checkpoint} {photos} --out {out}".split()
    main(command)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    # as after a kill: 5 was done and is gone since, 6 was begun and is half there, the last line is half written
    (out / "5.png").unlink()
    kept = [line for line in lines if '"done": "6"' not in line]
    (out / "predictions.jsonl").write_text("\n".join(kept) + '\n{"done": "6')
    (out / "6_overlay.png").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("?.png")}
    main([*command, "--resume"])
    assert "7 of 7 pictures" in (printed := capsys.readouterr().out)
    assert "6 of them by an earlier job" in printed
    assert not (out / "5.png").exists()
    assert (out / "6_overlay.png").exists()
    assert {p.name for p in out.glob("?.png") if p.stat().st_mtime_ns != times[p.name]} == {"6.png"}
    assert [entry["done"] for entry in records_of_whole_lines(out) if "done" in entry][-1] == "6"

    with pytest.raises(
        SystemExit
    ) as stop:  # with a flip it is another job, whose results would replace these
        main([*command, "--resume", "--flip"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("exists already") == 7  # 5 has an overlay


def test_resume_leaves_out_the_very_pictures_that_were_finished(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Other pictures of the same names, and a picture that was changed, are clashes, and never taken for done."""
    for seed, name in enumerate(("A/0.png", "A/1.png", "B/0.png", "B/1.png")):
        draw(tmp_path / name, seed=seed)
    words = ["--out", str(tmp_path / "out"), "--resume"]
    first, second = (["predict", str(scene_checkpoint), str(tmp_path / name), *words] for name in "AB")
    main(first)
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    said = refused(second, 2).splitlines()
    for name, line in zip("01", said, strict=True):
        assert f"{name}.png: exists already, of {tmp_path / 'A' / name}.png; give another --out" in line
    draw(tmp_path / "A" / "1.png", seed=9)
    assert "1.png: exists already, of this picture before it was changed" in refused(first)
    assert before == {path: path.read_bytes() for path in before}


def test_a_checkpoint_that_was_trained_on_is_another(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """At the same path; its results are not mixed with those of before."""
    model = atrous.load(scene_checkpoint)
    atrous.save(model, path := tmp_path / "model.safetensors")
    words = f"predict {path} {photos} --out {tmp_path / 'out'}".split()
    main([*words, "--shard", "1/2"])
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    atrous.save(model, path)
    said = refused([*words, "--resume"], 4).splitlines()
    assert all("exists already, by other settings" in line for line in said)
    assert len(list((tmp_path / "out").glob("?.png"))) == 7, "the others are predicted"
    last = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])["settings"]
    assert last["checkpoint"] == {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_results_among_the_pictures_are_not_predicted(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--out is the folder of the pictures; they are given as a folder, by a pattern, or as what a shell makes of *."""
    for number, name in enumerate(("a.jpg", "b.jpg", "sub/a.jpg", "sub/deep/c.jpg")):
        draw(tmp_path / name, seed=number)
    monkeypatch.chdir(tmp_path)
    predict = ["predict", str(scene_checkpoint)]
    main([*predict, ".", "--out", "."])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert len(before) == 8
    draw(tmp_path / "sub" / "new.png", seed=4)
    capsys.readouterr()
    for given, pictures in (([str(tmp_path / "*.*g")], 2), (["a.jpg", "a.png", "a_overlay.png", "b.jpg"], 2)):
        main([*predict, *given, "--out", ".", "--resume"])
        assert f"{pictures} of {pictures} pictures -> ., {pictures} of them by an" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    found = find_pictures(["."], leave_out=Path())
    assert list(found) == ["a", "b", "sub/a", "sub/deep/c", "sub/new"]


def test_results_above_the_pictures(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """A pattern below the folder of the results is looked for; where only results are found, that is said."""
    draw(tmp_path / "sub" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    main(["predict", str(scene_checkpoint), "sub/*.jpg", "--out", "."])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a.png", "a_overlay.png"]
    assert "are results that were written there" in refused(["predict", "a.png", "--out", ".", "--resume"])


def test_overwriting_by_other_settings_ends_what_was_done_before(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Whichever process's file the record is in."""
    out = tmp_path / "out"
    words = f"predict {scene_checkpoint} {photos} --out {out}".split()
    main(words)
    whole = {path: path.read_bytes() for path in out.glob("?.png")}
    main([*words, "--mode", "resize", "--size", "16", "--overwrite", "--shard", "1/2"])
    written = [
        name
        for name in map(str, range(7))
        if whole[out / f"{name}.png"] != (out / f"{name}.png").read_bytes()
    ]
    assert written == ["0", "2", "4", "6"]
    said = refused([*words, "--resume"], 4).splitlines()
    assert all("exists already, by other settings; give another --out" in line for line in said)
    main([*words, "--overwrite"])
    assert whole == {path: path.read_bytes() for path in whole}
    main([*words, "--resume"])


def records_of_whole_lines(folder: Path) -> list[dict[str, Any]]:
    whole = []
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            assert line == '{"done": "6'
    return whole


def dies_before_its_fourth(words: list[str]) -> None:
    torch.set_num_threads(1)
    put, count = many.put_in_place, itertools.count(1)

    def dying(written: dict[Path, Path]) -> None:
        if next(count) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        put(written)

    many.put_in_place = dying
    main(words)


def test_a_killed_job_goes_on(scene_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = f"predict {scene_checkpoint} {photos} --out {out} --device cpu".split()
    killed = PROCESSES.Process(target=dies_before_its_fourth, args=(command,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(out.glob("?.png"))) == 3
    before = {path: path.stat().st_mtime_ns for path in out.glob("?.png")}
    main([*command, "--resume"])
    assert sorted(path.name for path in out.glob("?.png")) == [f"{i}.png" for i in range(7)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    done = [entry["done"] for entry in records(out) if "done" in entry]
    assert sorted(done) == sorted(set(done)) == [str(i) for i in range(7)]
    assert not list(out.glob(".*"))


def test_ctrl_c_leaves_nothing_half_written(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(written: dict[Path, Path]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "put_in_place", stop)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        many.segment_files(Predictor(scene_checkpoint), find_pictures([photos]), out, Record(out, {}))
    assert [path.name for path in out.iterdir()] == ["predictions.jsonl"]
