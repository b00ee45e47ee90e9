"""Two processes at the same global batch are one process, but for the order of sums."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous import train as training
from atrous.config import Recipe
from atrous.metrics import Metrics
from atrous.run import Run

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["atrous.train"])
STEPS = 20


def recipe(folder: Path, devices: int) -> Recipe:
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
        devices=devices,
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


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    two = [
        PROCESSES.Process(
            target=one_of_two, args=(rank, port, recipe(tmp_path / "two", 2), tmp_path / f"{rank}.json")
        )
        for rank in range(2)
    ]
    for process in two:
        process.start()
    one = noted(recipe(tmp_path / "one", 1))
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
