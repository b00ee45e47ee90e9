"""Standard deviations as pydensecrf's functions take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from atrous.errors import InputError


def deviations(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Return `count` positive numbers, from as many or from one for all. inf: everything is near on that axis."""
    try:
        given = np.asarray(value)
    except (RuntimeError, TypeError, ValueError):  # a tensor that requires gradients; a list of unequal lists
        given = np.empty(0, object)
    if given.shape not in ((), (count,)) or given.dtype.kind not in "iuf" or not (given > 0).all():
        raise InputError(f"{name}: wanted one or {count} positive numbers, got {value!r}")
    return tuple(np.broadcast_to(given, (count,)).tolist())
