"""RUN/state.pt: all that a run needs to go on as if nothing had happened, in one file that is never half there.

It holds the network (and the average of its weights), the optimiser, the scaler of fp16, every random state, and how
far the run is: the learning rate follows from the iteration, the batches from seed, epoch and batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from atrous.config import Normalization, Recipe, read_recipe, to_dict
from atrous.errors import InputError
from atrous.replacing import left_behind, replacing
from atrous.training.run import Run, check_finite, save, write_failed

FORMAT = 1
SAVE_SECONDS = 180  # between two states, where `recipe.save_every` names no iterations
PROGRESS = (
    *("iteration", "epoch", "batch", "evaluated", "window", "loss"),
    *("best_miou", "seconds", "history", "broken"),
)
# What may be another when a run goes on; all else would make it another run.
FREE = ("data", "iterations", "epochs", "devices", "workers", "out", "save_every", "skip_broken")


def keep(run: Run) -> None:
    """Write `last.safetensors`, then the state."""
    check_finite(run)
    save(run, "last")
    save_state(run)


def is_due(run: Run) -> bool:
    """Whether it is time for another state."""
    if run.recipe.save_every:
        return run.iteration % run.recipe.save_every == 0
    return time.monotonic() - run.saved > SAVE_SECONDS


def save_state(run: Run) -> None:
    """Write state.pt. InputError where there is no room for it.

    The processes of a run draw the same random numbers, so those of the first stand for all.
    """
    run.saved = time.monotonic()
    if not run.fabric.is_global_zero:
        return
    state = {
        "format": FORMAT,
        "progress": {name: getattr(run, name) for name in PROGRESS},
        "scores": run.metadata.scores,
        "normalization": to_dict(run.metadata.normalization),
        "data": data_of(run),
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.optimizer.state_dict(),
        "precision": run.fabric._precision.state_dict(),  # the scaler
        "average": run.average and (run.average.updates, run.average.network.state_dict()),
        "random": random_states(),
    }
    path = run.folder / "state.pt"
    try:
        with replacing(path) as beside, beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's writer raises the second
        raise write_failed(path, error) from error


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state of a run; None where it was killed before its first one. InputError for a damaged file."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise InputError(f"{path}: written in format {state['format']}; this atrous reads {FORMAT}")
    except InputError:
        raise
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable state of a run ({reason})") from None
    return state


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put a freshly set up run where `state` was. InputError where the data is not what it was."""
    now = data_of(run)
    for what, before in state["data"].items():
        if now[what] != before:
            found = "others" if what == "names" else f"{now[what]}, when the run was stopped {before}"
            raise InputError(
                f"{run.recipe.data}: {what} are {found}: it can only go on with the data that it began with"
            )
    run.network.load_state_dict(state["network"])
    run.optimizer.optimizer.load_state_dict(state["optimizer"])
    run.fabric._precision.load_state_dict(state["precision"])
    if run.average and state["average"]:
        run.average.updates, weights = state["average"]
        run.average.network.load_state_dict(weights)
    run.metadata.scores = state["scores"]
    for name in PROGRESS:
        setattr(run, name, state["progress"][name])
    set_random_states(state["random"])


def normalization(state: dict[str, Any]) -> Normalization:
    """What the network's pictures are normalised with."""
    values = state["normalization"]
    return Normalization(tuple(values["mean"]), tuple(values["std"]))


def data_of(run: Run) -> dict[str, Any]:
    """What must not change under a run: the order of the pictures depends on it."""
    parts = (run.train_data, run.val_data)
    names = "\n".join(data.name(index) for data in parts for index in range(len(data)))
    return {
        "pictures": len(run.train_data),
        "classes": list(run.train_data.labels.names),
        "names": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
    }


def random_states() -> dict[str, Any]:
    """Python's, numpy's, torch's and CUDA's, in types that are read back without running code."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all(states["cuda"])


def resumed_recipe(folder: Path, changes: dict[str, Any]) -> Recipe:
    """The recipe of the run in `folder` with `changes`, where these leave it the same run; InputError otherwise."""
    path = folder / "recipe.yaml"
    if not path.exists():
        raise InputError(f"{folder}: no run to resume here (recipe.yaml is missing)")
    recipe = read_recipe(path)
    before, after = to_dict(recipe), to_dict(replace(recipe, **changes))
    for key, value in after.items():
        if key not in FREE and value != before[key]:
            raise InputError(
                f"--{key} {value} contradicts the run in {folder}, which has {before[key]}: "
                f"with --resume, only {', '.join(FREE)} may be given anew"
            )
    if changes.get("epochs") is not None and changes.get("iterations") is None:
        changes = changes | {"iterations": None}
    for key in set(changes) & set(FREE):
        setattr(recipe, key, changes[key])
    recipe.out = recipe.out if changes.get("out") else str(folder)
    return recipe


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    files = ("state.pt", "last.safetensors", "best.safetensors", "log.csv", "recipe.yaml")
    of_safetensors = folder.glob(".tmp??????")  # it writes beside and renames, too
    for beside in chain(of_safetensors, *(left_behind(folder / name) for name in files)):
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_step() -> Iterator[None]:
    """Ctrl-C within waits for the end: a step is done or not done, never half."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def remember(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
