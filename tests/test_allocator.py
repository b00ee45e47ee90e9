"""Memory that stays with the process, counted by the pages that the system has to hand out."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

# 4 blocks of 20 MB, filled and freed, ten times over: 20,000 pages of 4 KiB each time unless they are kept
FAULTS = """
import resource, sys
import numpy as np
from atrous.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory(), file=sys.stderr)
def work():
    blocks = [np.ones(20_000_000, np.uint8) for _ in range(4)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="another C library",
)


def run(how: str, **environment: str) -> tuple[int, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        check=True,
        capture_output=True,
        text=True,
        env=clean | environment,
    )
    return int(done.stdout), done.stderr.strip()


@glibc
def test_freed_memory_is_used_again() -> None:
    kept, said = run("keep")
    assert said == "True"
    assert kept < 1000
    assert run("leave")[0] > 20 * kept


@glibc
def test_settings_of_the_environment_count() -> None:
    faults, said = run("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert said == "False"
    assert faults > 10_000


def test_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.allocator import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory.__wrapped__() is False
