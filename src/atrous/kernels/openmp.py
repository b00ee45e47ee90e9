"""Machine code on torch's own threads.

torch's OpenMP threads wait for their next work in a busy loop for some milliseconds, and meanwhile take the processor
from every other thread (Python's, numba's): a short loop between two convolutions has to run on them.
GCC enters a parallel region by `GOMP_parallel`, and so can we; LLVM's and Intel's OpenMP have it too, on Linux.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _enter() -> Callable[..., None] | None:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP that torch itself is linked with."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        enter = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    enter.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    enter.restype = None
    return enter


def available() -> bool:
    return _enter() is not None


def run(region: int, data: int, threads: int) -> None:
    """Call the C function `void region(void *data)` at an address, once on each of `threads` threads.

    Without OpenMP on threads of Python's, which `region` does not hold up.
    """
    enter = _enter()
    if threads <= 1:
        Region(region)(data)
    elif enter is not None:
        enter(region, data, threads, 0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(Region(region), [data] * threads))
