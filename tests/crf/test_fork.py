"""The CRF in forked processes, as `multiprocessing.Pool` makes them on Linux."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import numpy as np
import torch
from atrous import DenseCRF

def run(seed):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return DenseCRF(2)(image, np.moveaxis(random.dirichlet(np.ones(5), (120, 160)), 2, 0))

torch.set_num_threads(2)
mine = [run(0), run(1)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    theirs = pool.map_async(run, [0, 1]).get(timeout=60)
assert np.abs(np.subtract(mine, theirs)).max() < 1e-6
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork unless asked to")
def test_forked_processes_answer_as_their_parent() -> None:
    """Without care they wait for the parent's threads, which they do not have, for ever."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
