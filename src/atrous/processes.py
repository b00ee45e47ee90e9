"""Several processes at one task, as `torchrun` starts them: who this one is, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from atrous.errors import InputError

GATHERING = timedelta(minutes=10)  # for all to begin: each has read its network by then
PATIENCE = timedelta(days=30)  # a process that has finished waits for the slowest


def count() -> int:
    """How many there are; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "MASTER_ADDR" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0 on."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def device(name: str) -> str:
    """The device of this process: each has a GPU of its own where "auto" or "cuda" finds some."""
    if count() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return name


@contextmanager
def together() -> Iterator[None]:
    """Within, `add_up` and `collect` work; a single process needs nothing for that.

    Raises InputError where what started the processes is gone, or some do not come.
    """
    if count() == 1:
        yield
        return
    try:
        store, number, of = next(dist.rendezvous("env://", timeout=GATHERING))
        dist.init_process_group("gloo", store=store, rank=number, world_size=of, timeout=PATIENCE)
    except dist.DistError as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"process {rank()} of {count()} is alone, without the others or torchrun ({why})"
        ) from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def add_up(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over all processes, the same in each of them; whole numbers, so it is exact."""
    if count() == 1:
        return counts
    total = torch.from_numpy(counts.copy())
    dist.all_reduce(total)
    return total.numpy()


def collect(lines: list[str]) -> list[str]:
    """The lines of all processes in their order; each waits here for the others."""
    if count() == 1:
        return lines
    gathered: list[Any] = [None] * count()
    dist.all_gather_object(gathered, lines)
    return [line for part in gathered for line in part]
