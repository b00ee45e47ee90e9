from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.kernels import compiled_loop, openmp
from atrous.kernels.compiled_loop import Loop

pytest.importorskip("numba")

SOURCE = """
import numpy as np
from atrous.kernels.simd import scratch

def add(lo, hi, seen, steps):
    some = scratch(np.int64, 2)
    for i in range(2):
        some[i] = steps[i]
    for i in range(lo, hi):
        seen[i] += some[0] * some[1]

def fails_once(lo, hi, seen):
    for i in range(lo, hi):
        if seen[i] > 6:
            raise ValueError
        seen[i] = i

def with_memory(lo, hi, seen):
    rest = np.empty(hi)
    for i in range(lo, hi):
        rest[i] = i
    seen[lo] = rest.sum()
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("loops")
    (folder / "some_loops.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def own_cache(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "atrous" / "loops"


@pytest.mark.parametrize("with_openmp", [True, False])
def test_every_number_comes_once(module: Path, with_openmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if with_openmp and not openmp.available():
        pytest.skip("torch has another OpenMP")
    if not with_openmp:
        monkeypatch.setattr(openmp, "_enter", lambda: None)
    loop, before = Loop("some_loops", "add"), torch.get_num_threads()
    for n, threads, dtype in itertools.product((0, 1, 2, 5, 1000), (1, 2, 3), (np.float32, np.int16)):
        seen = np.zeros(n + 1, dtype)
        try:
            torch.set_num_threads(threads)
            loop.run(n, seen, (3, 7))
        finally:
            torch.set_num_threads(before)
        assert seen.tolist() == [21] * n + [0]


def test_threads_of_python_may_share_a_loop(own_cache: Path) -> None:
    loop = Loop("some_loops", "add")
    seen = [np.zeros(100, np.float32) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda array: loop.run(100, array, (1, 2)), seen))
    assert all((array == 2).all() for array in seen)


def code(own_cache: Path) -> Path:
    (file,) = own_cache.glob("add_*.o")
    return file


def test_another_process_needs_no_numba(own_cache: Path, module: Path) -> None:
    words = (
        "import sys, numpy, torch; from atrous.kernels.compiled_loop import Loop; "
        "seen = numpy.zeros(9, numpy.float32); "
        "Loop('some_loops', 'add').run(9, seen, (2, 2)); assert (seen == 4).all(); print('numba' in sys.modules)"
    )

    def run() -> str:
        path = os.pathsep.join([str(module), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", words],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "True"
    first = code(own_cache).read_bytes()
    assert run() == "False"
    for damaged in (first[:-1], first[:200] + b"x" + first[201:]):
        code(own_cache).write_bytes(damaged)
        assert run() == "True"
        assert len(code(own_cache).read_bytes()) == len(first)


def test_code_follows_its_source(own_cache: Path, module: Path) -> None:
    loops = [
        compiled_loop._digest("some_loops", name, kinds) for name in ("add", "x") for kinds in ((), ("i",))
    ]
    source = module / "some_loops.py"
    source.write_text(SOURCE + "# changed")
    loops.append(compiled_loop._digest("some_loops", "add", ()))
    source.write_text(SOURCE)
    assert len(set(loops)) == 5


def test_works_where_nothing_can_be_kept(
    tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    seen = np.zeros(3, np.float32)
    Loop("some_loops", "add").run(3, seen, (1, 1))
    assert (seen == 1).all()


def test_what_cannot_be_loaded_alone_is_refused(own_cache: Path) -> None:
    """Machine code that asks numba's runtime for memory would call address 0."""
    with pytest.raises(TypeError, match=r"some_loops.with_memory calls NRT"):
        Loop("some_loops", "with_memory").run(1, np.zeros(3))
    assert not own_cache.exists()


def test_what_fails_is_said(own_cache: Path) -> None:
    loop, seen = Loop("some_loops", "fails_once"), np.zeros(100, np.float32)
    loop.run(100, seen)
    with pytest.raises(RuntimeError, match=r"some_loops.fails_once failed"):
        loop.run(100, seen)
    x = torch.randn(1, 8, 64, 64)  # and torch's own threads still work
    assert F.conv2d(x, torch.randn(8, 8, 3, 3)).shape == (1, 8, 62, 62)


def test_nothing_is_left_beside(own_cache: Path) -> None:
    Loop("some_loops", "add").run(3, np.zeros(3, np.float32), (1, 1))
    assert [path.suffix for path in own_cache.iterdir()] == [".o"]


def test_arrays_lie_in_c_order(module: Path) -> None:
    with pytest.raises(TypeError, match="C order"):
        Loop("some_loops", "add").run(1, np.zeros((3, 3), np.float32).T, (1, 1))


def test_another_numba_is_left_alone(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: Any) -> Any:
        raise AttributeError("'Library' has no attribute '_get_compiled_object'")

    compiled_loop.available.cache_clear()
    monkeypatch.setattr(compiled_loop, "compile_region", changed)
    try:
        assert not compiled_loop.available()
    finally:
        compiled_loop.available.cache_clear()
    monkeypatch.undo()
    assert compiled_loop.available()
