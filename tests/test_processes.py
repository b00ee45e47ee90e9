"""Two processes at the same global batch are one process, but for the order of sums."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous import processes
from atrous import train as training
from atrous.checkpoint import load, metadata_of
from atrous.config import Recipe, read_recipe
from atrous.errors import InputError
from atrous.metrics import Metrics
from atrous.training.launch import launch, most_devices, started
from atrous.training.run import Run
from forkserver import PROCESSES

STEPS = 20


def recipe(folder: Path) -> Recipe:
    """Crops with rims that are ignored, so that the labelled pixels of the two differ. Without dropout, whose masks
    differ with the pictures of a process.

    In float64: batch norm over few values multiplies a difference with every step, and in float32 the order of sums
    alone, 1e-7, has grown to more than the bound after ten steps at this rate.
    """
    return Recipe(
        data_options={"length": 24, "size": [48, 48]},
        model="deeplab_v2",
        backbone="resnet18",
        crop_size=32,
        scale=(0.5, 1.0),
        batch_size=4,
        iterations=STEPS,
        learning_rate=0.005,
        lr_groups="uniform",
        schedule="poly",
        sync_bn=True,
        evaluate_every=100,
        max_val=5,
        workers=0,
        device="cpu",
        precision="64-true",
        out=str(folder),
    )


class Notes:
    """The loss of every step, and what the evaluation counted."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.confusion: list[list[int]] = []

    def started(self, run: Run) -> None: ...
    def stepped(self, run: Run) -> None: ...
    def evaluated(self, run: Run, metrics: Metrics) -> None:
        self.confusion = metrics.confusion.tolist()


def noted(recipe: Recipe) -> Notes:
    torch.set_num_threads(1)
    if recipe.precision == "64-true":
        torch.set_default_dtype(torch.float64)  # Fabric brings what a network gives to it
    notes, take_step = Notes(), training.take_step

    def noting(*arguments: Any) -> float:
        notes.losses.append(take_step(*arguments))
        return notes.losses[-1]

    training.take_step = noting
    try:
        training.train(recipe, notes)
    finally:
        training.take_step = take_step
        torch.set_default_dtype(torch.float32)
    return notes


def one_of_two(rank: int, port: int, recipe: Recipe, file: Path) -> None:
    """What torchrun starts."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    file.write_text(json.dumps(vars(noted(recipe))))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    port = free_port()
    two = [
        PROCESSES.Process(
            target=one_of_two, args=(rank, port, recipe(tmp_path / "two"), tmp_path / f"{rank}.json")
        )
        for rank in range(2)
    ]
    for process in two:
        process.start()
    one = noted(recipe(tmp_path / "one"))
    for process in two:
        process.join()
        assert process.exitcode == 0
    notes = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    curve = np.mean([note["losses"] for note in notes], axis=0)
    assert len(curve) == STEPS
    assert curve == pytest.approx(one.losses, abs=1e-4)

    truth = np.sum(notes[0]["confusion"], axis=1)
    assert truth.tolist() == np.sum(one.confusion, axis=1).tolist()
    assert truth.sum() == 5 * 48 * 48


def of_two(rank: int, port: int) -> dict[str, str]:
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}


def slow_second(port: int, ready: Any, seconds: float) -> None:
    os.environ |= of_two(1, port)
    ready.set()
    with processes.together():
        time.sleep(seconds)
        assert processes.collect(["slow"]) == ["quick", "slow"]


def test_the_slowest_is_waited_for_longer_than_for_all_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    port, ready = free_port(), PROCESSES.Event()
    second = PROCESSES.Process(target=slow_second, args=(port, ready, 5.0))
    second.start()
    assert ready.wait(60)
    for name, value in of_two(0, port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "GATHERING", timedelta(seconds=4))
    with processes.together():
        assert processes.collect(["quick"]) == ["quick", "slow"]
    second.join()
    assert second.exitcode == 0


def test_what_started_the_processes_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a port where nobody answers, as a killed torchrun leaves it."""
    for name, value in of_two(1, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "GATHERING", timedelta(seconds=1))
    with (
        pytest.raises(InputError, match=r"process 1 of 2 is alone.*timed out after 1000ms"),
        processes.together(),
    ):
        pass


FABRIC = str(Path(sys.executable).with_name("fabric"))
MAIN = Path(training.__file__).with_name("__main__.py")
TINY = (
    "train scenes --data_options.length 8 --data_options.size [48,48] --model deeplab_v2 --backbone resnet18 "
    "--crop_size 32 --batch_size 4 --iterations 2 --max_val 3 --workers 0 --device cpu --precision 32-true --out run"
).split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "atrous", *TINY],
        [FABRIC, "run", "--accelerator=cpu", "--devices=2", str(MAIN), "--", *TINY],
        ["-m", "atrous", *TINY, "--devices", "2"],
    ],
    ids=["torchrun", "fabric", "python"],
)
def test_it_starts_on_two_processes(tmp_path: Path, words: list[str]) -> None:
    """One run, of both: batches of four are two for each, and the last measurement counts three pictures once."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", done.stdout)


@pytest.mark.slow
def test_it_starts_under_slurm(tmp_path: Path) -> None:
    """The variables that srun gives to each of the two tasks of a step."""
    tasks = []
    for task in ("0", "1"):
        step = {"STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 1, "NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1}
        job = {"JOB_ID": os.getpid(), "JOB_NAME": "v3plus", "NODELIST": "localhost"}
        own = {"PROCID": task, "LOCALID": task, "NODEID": 0}
        slurm = {f"SLURM_{name}": str(value) for name, value in (step | job | own).items()} | {
            "OMP_NUM_THREADS": "1"
        }
        tasks.append(
            subprocess.Popen(
                [sys.executable, "-m", "atrous", *TINY], cwd=tmp_path, env=os.environ | slurm, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    said = [task.communicate(timeout=600) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    check_run(tmp_path / "run", "".join(out for out, _ in said))


def check_run(run: Path, printed: str) -> None:
    assert printed.count("2 iterations of 4 crops of 32 px on cpu in 2 processes, 32-true") == 1
    assert read_recipe(run / "recipe.yaml").batch_size == 4
    with (run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows if row["loss"]] == ["2"]
    model = load(run / "last.safetensors")
    scores = metadata_of(model).scores
    assert (scores["pictures"], scores["iteration"]) == (3, 2)


def test_what_a_launcher_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert started() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "64")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "8")
    assert started() == (8, 8)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "12")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert started() == (4, 3)
    with pytest.raises(InputError, match="devices 3 contradicts the 4 processes that were started"):
        launch(Recipe(devices=3), [])


@pytest.mark.parametrize(("devices", "said"), [(99, "has 4 processor cores"), (5, "has 4")])
def test_processes_that_the_machine_cannot_hold(
    devices: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with pytest.raises(InputError, match=f"devices {devices}.*{said}"):
        launch(Recipe(devices=devices, device="cpu"), [])
    assert most_devices("cpu") == (4, "processor cores")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert most_devices("auto") == (2, "GPUs")
    assert most_devices("cpu") == (4, "processor cores")
