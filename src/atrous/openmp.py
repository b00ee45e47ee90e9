"""Compiled loops on torch's own threads.

torch's OpenMP threads wait for their next work in a busy loop for some milliseconds, and meanwhile take the processor
from every other thread (`crf.jit.Crew`'s, numba's): a short loop between two convolutions has to run on them.
GCC enters a parallel region by `GOMP_parallel`, and so can we; LLVM's and Intel's OpenMP have it too, on Linux.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PIECES_PER_THREAD = 4  # a thread that was held up leaves its pieces to the others


@functools.cache
def _enter() -> Callable[..., None] | None:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP that torch itself is linked with."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        enter = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    enter.argtypes, enter.restype = (Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return enter


def available() -> bool:
    return _enter() is not None


def run(loop: Callable[..., None], n: int, *args: Any) -> None:
    """Call `loop(lo, hi, *args)` over pieces lo..hi of 0..n, on as many threads as torch uses.

    loop: free of Python's lock (`crf.jit.compiled`). The result must not depend on how it is cut.
    """
    threads = torch.get_num_threads()
    pieces = min(n, threads * PIECES_PER_THREAD) if threads > 1 else 1
    counter = itertools.count()
    errors: list[BaseException] = []

    def work(_data: Any = None) -> None:
        try:
            while (t := next(counter)) < pieces:
                loop(n * t // pieces, n * (t + 1) // pieces, *args)
        except BaseException as error:  # it must not leave through C
            errors.append(error)

    enter = _enter()
    if threads == 1 or enter is None:
        work()
    else:
        enter(Region(work), None, threads, 0)
    if errors:
        raise errors[0]


def lanes(channels: int) -> tuple[int, ...]:
    """For a loop over rows of channels, 16 or 8 at a time (see `crf.simd`)."""
    return (0, 0) if channels % 16 == 0 else (0,)
