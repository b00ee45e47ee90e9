"""numba's `njit` as this package uses it: compiled once, kept on disk, float division without Python's checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on its first call. The result is cached beside this file or, where that cannot be written,
    in the user's cache folder or $NUMBA_CACHE_DIR; where none can be written, it lives as long as the process."""

    def decorate(function: Callable[..., Any]) -> Any:
        options = {"parallel": parallel, "error_model": "numpy", "nogil": True}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to write to
            return numba.njit(**options)(function)

    return decorate
