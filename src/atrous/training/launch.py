"""How many processes a run has: what the recipe asks for, or what torchrun, `fabric run` or srun started already."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric

from atrous.config import Recipe
from atrous.errors import InputError


def started() -> tuple[int, int] | None:
    """(processes of a machine, machines) of the launcher that started this one; None where none did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun, and `fabric run`, which calls it
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    if "SLURM_STEP_NUM_TASKS" in os.environ:  # srun, not the batch script around it
        machines = int(os.environ["SLURM_STEP_NUM_NODES"])
        return int(os.environ["SLURM_STEP_NUM_TASKS"]) // machines, machines
    return None


def most_devices(device: str) -> tuple[int, str]:
    """How many processes can have a device of this machine each, and what those are."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count(), "GPUs"
    return os.cpu_count() or 1, "processor cores"


def launch(recipe: Recipe, loggers: list[Any]) -> Fabric:
    """Fabric with all processes of the run, started where they are not yet. InputError where they contradict it."""
    devices, machines = started() or (recipe.devices, 1)
    if recipe.devices not in (1, devices):
        raise InputError(
            f"devices {recipe.devices} contradicts the {devices} processes that were started on this machine: "
            "leave out --devices, the launcher has said it"
        )
    most, what = most_devices(recipe.device)
    if started() is None and devices > most:
        raise InputError(f"devices {devices}: this machine has {most} {what}, and each process needs its own")
    try:
        fabric = Fabric(
            accelerator=recipe.device,
            devices=devices,
            num_nodes=machines,
            precision=recipe.precision,  # type: ignore[arg-type]
            loggers=loggers,
        )
    except ValueError as error:  # the flags of `fabric run` beside the recipe's
        raise InputError(
            f"{error} (fabric run takes flags that it knows, wherever they stand: put -- before the words for atrous)"
        ) from None
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has launched, and forbids a second time
        fabric.launch()
    return fabric
