"""A run that was killed ends as if it had not been: weights, scores and log, bit for bit."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import atrous
from atrous import checkpoint
from atrous import train as training
from atrous.cli import main
from atrous.config import Recipe, read_recipe
from atrous.errors import InputError
from atrous.training import state
from atrous.training.run import Run
from forkserver import PROCESSES


def recipe(folder: Path, **settings: Any) -> Recipe:
    """12 iterations on 10 drawn scenes: 2 in an epoch and 2 pictures left out, dropout and random crops."""
    small: dict[str, Any] = {
        "data_options": {"length": 10, "size": [48, 48]},
        "backbone": "mobilenet_v2",
        "model_options": {"width": 0.25, "separable": True},
        "crop_size": 32,
        "jitter": 0.2,
        "batch_size": 4,
        "iterations": 12,
        "optimizer": "adamw",
        "learning_rate": 0.002,
        "ema": 0.9,
        "workers": 0,
        "device": "cpu",
        "precision": "32-true",
        "evaluate_every": 2,
        "max_val": 2,
        "save_every": 1,
        "out": str(folder),
    }
    return Recipe(**(small | settings))


def begin_or_resume(recipe: Recipe, die: str | None = None) -> None:
    """What a killed process was doing. die: the write in whose middle it kills itself, "file:how many before it"."""
    torch.set_num_threads(1)
    folder = Path(recipe.out or "")
    if die:
        die_within(*die.split(":"))
    if (folder / "recipe.yaml").exists():
        training.resume(folder)
    else:
        training.train(recipe)


def die_within(file: str, after: str) -> None:
    """Kill this process when half of `file` is written, at its write number `after` (from 0)."""
    left = int(after)

    def half(path: Path, write: Any) -> None:
        nonlocal left
        write()
        if file in path.name:
            left -= 1
            if left < 0:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    save_file, save = checkpoint.save_file, torch.save

    def save_weights(weights: Any, path: Path, *rest: Any) -> None:
        half(path, lambda: save_file(weights, path, *rest))

    def save_state(content: Any, stream: Any) -> None:
        half(Path(stream.name), lambda: (save(content, stream), stream.flush()))

    checkpoint.save_file = save_weights
    torch.save = save_state


def killed(recipe: Recipe, seconds: float | None = None, die: str | None = None) -> bool:
    """Begin or resume in a process of its own and kill -9 it; whether it was, before it came to its end."""
    process = PROCESSES.Process(target=begin_or_resume, args=(recipe, die))
    process.start()
    if seconds is not None:
        process.join(seconds)
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def rows(folder: Path) -> list[dict[str, str]]:
    found = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def assert_the_same(folder: Path, other: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = load_file(folder / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
        scores = [checkpoint.metadata_of(atrous.load(f / name)).scores for f in (folder, other)]
        assert scores[0] == scores[1]
    assert rows(folder) == rows(other)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    begin_or_resume(recipe(folder))
    return folder


def test_kill_9_at_three_moments(undisturbed: Path, tmp_path: Path) -> None:
    """In the middle of writing a state, a checkpoint, the best one."""
    ours = recipe(tmp_path / "run")
    for die in ("state.pt:2", "last.safetensors:3", "best.safetensors:0"):
        assert killed(ours, die=die), die
        (tmp_path / "run" / ".tmpRrNCyQ").touch()  # of safetensors, killed within
        assert atrous.load(tmp_path / "run" / "last.safetensors")
    begin_or_resume(ours)
    assert_the_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_kill_9_at_ten_random_moments(undisturbed: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    ours = recipe(tmp_path / "run")
    PROCESSES.Process(target=int).start()  # the server imports torch
    began = time.monotonic()
    assert not killed(recipe(tmp_path / "whole"))
    whole = time.monotonic() - began
    kills = 0
    for _ in range(60):
        if killed(ours, seconds=draw.uniform(0.1, 0.6) * whole):
            kills += 1
        else:
            assert_the_same(tmp_path / "run", undisturbed)
            shutil.rmtree(tmp_path / "run")
        if kills == 10:
            break
    assert kills == 10
    begin_or_resume(ours)
    assert_the_same(tmp_path / "run", undisturbed)


def test_ctrl_c_and_loading_processes_change_nothing(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of an epoch, then in an evaluation; gone on with by two loading processes."""

    class Impatient:
        def started(self, run: Run) -> None: ...
        def evaluated(self, run: Run, metrics: object) -> None: ...
        def stepped(self, run: Run) -> None:
            if run.iteration == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(tmp_path / "run", save_every=None), Impatient())

    def stop(*_arguments: Any, **_settings: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", stop)
        training.resume(tmp_path / "run")
    training.resume(tmp_path / "run", workers=2, save_every=1)
    assert_the_same(tmp_path / "run", undisturbed)


def test_a_run_that_is_over_can_be_made_longer(undisturbed: Path, tmp_path: Path) -> None:
    main(["train", "--resume", str(undisturbed), "--iterations", "14", "--out", str(tmp_path / "longer")])
    assert rows(tmp_path / "longer")[:-2] == rows(undisturbed)
    assert rows(tmp_path / "longer")[-1]["iteration"] == "14"
    assert read_recipe(undisturbed / "recipe.yaml").iterations == 12
    before = (undisturbed / "last.safetensors").read_bytes()
    main(["train", "--resume", str(undisturbed)])  # nothing left to do
    assert (undisturbed / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "0.5"], "--learning_rate 0.5 contradicts the run in"),
        (["--seed", "1"], "--seed 1 contradicts"),
        (["--model_options.width", "0.5"], "--model_options"),
        (["--recipe", "recipes/scenes.yaml"], "leave out --recipe"),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    undisturbed: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", str(undisturbed), *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(tmp_path / "gone")])
    assert "gone: no run to resume here" in capsys.readouterr().err


def test_a_damaged_state_and_other_data_are_said(undisturbed: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "state.pt"):
        (tmp_path / name).write_bytes((undisturbed / name).read_bytes())
    os.truncate(tmp_path / "state.pt", 5000)
    with pytest.raises(InputError, match=r"state\.pt: not a readable state"):
        training.resume(tmp_path)
    (tmp_path / "state.pt").write_bytes((undisturbed / "state.pt").read_bytes())
    text = (tmp_path / "recipe.yaml").read_text().replace("length: 10", "length: 11")
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match="go on with the data that it began with"):
        training.resume(tmp_path)


def test_data_may_move_but_not_change(pictures_and_masks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings: dict[str, Any] = {"data": str(pictures_and_masks), "data_options": {}, "iterations": 2}
    training.train(recipe(run, **settings))
    moved = pictures_and_masks.rename(tmp_path / "moved")
    main(["train", str(moved), "--resume", str(run), "--iterations", "3"])
    assert rows(run)[-1]["iteration"] == "3"
    assert read_recipe(run / "recipe.yaml").data == str(moved)
    for folder in ("images", "masks"):
        (old,) = (moved / folder).glob("0.*")
        old.rename(old.with_stem("another"))
    with pytest.raises(InputError, match="moved: names are others: it can only go on with the data"):
        training.resume(run, iterations=4)
    kept = torch.load(run / "state.pt", weights_only=True)
    del kept["data"]["names"]  # as older versions wrote it
    torch.save(kept, run / "state.pt")
    assert training.resume(run, iterations=4).iteration == 4


def test_random_states_come_back() -> None:
    kept = state.random_states()
    first = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
    state.set_random_states(kept)
    assert first == (random.random(), np.random.rand(), torch.rand(()).item())  # noqa: NPY002


INTERRUPTED = """
import os, signal
from atrous.training import state

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
done = False
try:
    with state.whole_step():
        os.kill(os.getpid(), signal.SIGINT)
        done = True
except KeyboardInterrupt:
    print("interrupted", done, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_waits_for_the_end_of_a_step() -> None:
    """In a process of its own: a signal is the whole process's."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "interrupted True True\n", done.stderr
