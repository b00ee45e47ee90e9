"""Compiled functions as this package uses them: cached on disk, free of Python's lock, run in pieces on threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numba
import torch

PIECES_PER_THREAD = 6  # a thread that was held up leaves its pieces to the others


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call.

    The result is cached beside the file or, where that cannot be written, in the user's cache folder or
    $NUMBA_CACHE_DIR; where no folder can be written, it lives as long as the process.
    """
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # numba found no folder to write to
        return numba.njit(error_model="numpy", nogil=True)(function)


class Crew:
    """As many threads as torch uses (`torch.set_num_threads`), to run loops in pieces. Use it as a context.

    Threads of Python, not of numba: they sleep while they wait, start in a millisecond, compile nothing extra, and
    leave torch's OpenMP threads and forked processes alone.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def run(self, loop: Callable[..., None], n: int, *args: Any, each: int = PIECES_PER_THREAD) -> None:
        """Call `loop(lo, hi, *args)` over pieces lo..hi of 0..n, `each` per thread.

        The result must not depend on how it is cut.
        """
        pieces = max(1, min(n, self.threads * each)) if self._pool else 1
        self._share([(n * t // pieces, n * (t + 1) // pieces) for t in range(pieces)], loop, *args)

    def map(self, function: Callable[..., Any], n: int, size: int, *args: Any) -> list[Any]:
        """What `function(lo, hi, *args)` returns for each piece lo..hi of 0..n, of `size` or, the last, less."""
        return self._share([(lo, min(lo + size, n)) for lo in range(0, n, size)], function, *args)

    def _share(self, pieces: list[tuple[int, int]], function: Callable[..., Any], *args: Any) -> list[Any]:
        results: list[Any] = [None] * len(pieces)
        counter = itertools.count()

        def work() -> None:
            while (t := next(counter)) < len(pieces):
                results[t] = function(*pieces[t], *args)

        others = [self._pool.submit(work) for _ in range(self.threads - 1)] if self._pool else []
        work()
        for other in others:
            other.result()
        return results
