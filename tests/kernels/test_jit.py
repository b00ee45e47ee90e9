from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba")


def test_compiles_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.kernels import jit

    njit = numba.njit

    def no_folder(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", no_folder)
    function = jit.compiled(lambda x: x + 1)
    monkeypatch.undo()
    assert function(2) == 3


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 3, 100])
def test_crew_covers_the_range_once(threads: int, n: int) -> None:
    from atrous.kernels.jit import Crew

    seen = np.zeros(n, int)

    def loop(lo: int, hi: int, array: np.ndarray[Any, Any]) -> None:
        array[lo:hi] += 1

    with Crew(threads) as crew:
        crew.run(loop, n, seen)
    assert (seen == 1).all()


def test_crew_hands_on_errors() -> None:
    from atrous.kernels.jit import Crew

    def loop(lo: int, hi: int) -> None:
        raise ZeroDivisionError

    with Crew(2) as crew, pytest.raises(ZeroDivisionError):
        crew.run(loop, 10)


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, atrous.crf; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_in_registers() -> None:
    from atrous.kernels.jit import compiled
    from atrous.kernels.simd import row_exp, row_fma, row_load, row_max, row_store, row_sum, row_top

    @compiled
    def run(lanes, x, whole, out, small):  # type: ignore[no-untyped-def]
        a, b = row_load(lanes, x, 0), row_load(lanes, whole, 0)
        row_store(out, 0, row_exp(a, np.float32(0)))
        row_store(small, 0, row_fma(np.float32(0.25), b, row_max(a, row_fma(np.float32(-1), a, b))))
        return row_sum(a), row_top(a)

    for parts in (1, 2, 3, 4):
        width = 8 * parts
        x = np.linspace(-60, 3, width, dtype=np.float32)
        whole = (np.arange(width) * 1500 + 10).astype(np.uint16)
        out, small = np.empty(width, np.float32), np.empty(width, np.uint16)
        total, top = run((0,) * parts, x, whole, out, small)
        assert np.isclose(total, x.sum(), rtol=1e-5)
        assert top == x.max()
        assert np.allclose(out, np.exp(np.maximum(x, -40)), rtol=3e-7)
        wanted = 0.25 * whole + np.maximum(x, whole - x)
        assert np.array_equal(small, np.floor(wanted + 0.5).astype(np.uint16))
