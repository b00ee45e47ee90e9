"""Compiled loops that start without their compiler, on torch's own threads.

numba takes half a second to be imported and to look into its own cache, a fifth of what one photo takes from the start
of Python to its labels. So the machine code of a loop is kept in the user's cache folder, and a process that finds it
there loads it with LLVM alone (llvmlite, which numba brings).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrous.cache import cache_folder
from atrous.kernels import openmp
from atrous.kernels.region import FAILED, compile_region
from atrous.replacing import replacing

PIECES_PER_THREAD = 4  # a thread that was held up leaves its pieces to the others
USED_BY_LOOPS = ("atrous.kernels.jit", "atrous.kernels.simd", "atrous.kernels.region")
LOADING = threading.Lock()
LANES_8, LANES_16 = (0,), (0, 0)  # numbers at a time, as `simd` is told
FREE = {"memcpy", "memset", "memmove"}  # of the C library: machine code may want nothing else from outside


class Loop:
    """A function (lo, hi, *args) of a module, compiled for the arguments that it is given.

    Arguments: numpy arrays in C order, ints, tuples of ints. The function sees an array flat, whatever its shape. It
    must ask for no memory but `simd.scratch`, and raise nothing.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self._regions: dict[tuple[str, ...], int] = {}

    def run(self, n: int, *args: Any) -> None:
        """The loop over 0..n, in pieces, on as many threads as torch uses.

        The result must not depend on how it is cut.
        """
        kinds = tuple(map(_kind, args))
        if kinds not in self._regions:
            with LOADING:
                if kinds not in self._regions:
                    self._regions[kinds] = _load(self.module, self.name, kinds)
        threads = torch.get_num_threads()
        pieces = min(n, threads * PIECES_PER_THREAD) if threads > 1 else 1
        numbers = [number for arg in args for number in _words(arg)]
        words = np.array([0, pieces, n, 0, *numbers], np.int64)
        openmp.run(self._regions[kinds], words.ctypes.data, min(threads, pieces))
        if words[FAILED]:
            raise RuntimeError(f"{self.module}.{self.name} failed")


@functools.cache
def available() -> bool:
    """Whether numba is there, and compiles as it is asked to here."""
    if importlib.util.find_spec("numba") is None:
        return False
    numbers = np.zeros(3, np.float32)
    try:
        Loop("atrous.kernels.compiled_loop", "_trial").run(3, numbers, (5, 2))
    except Exception:  # `region` is made with numba's inner parts, which are no promise of its
        return False
    return numbers.tolist() == [5, 7, 9]


def takes(x: Tensor) -> bool:
    """Whether loops are available, and reach `x`."""
    return x.device.type == "cpu" and available()


def lanes(channels: int) -> tuple[int, ...]:
    """For rows of a multiple of 8 channels, which leaves no rest."""
    return LANES_16 if channels % 16 == 0 else LANES_8


def _trial(lo, hi, numbers, line):  # type: ignore[no-untyped-def]
    for i in range(lo, hi):
        numbers[i] = line[0] + line[1] * i


def _kind(arg: Any) -> str:
    """ "*float32" for an array, "i" for a number, "(3)" for a tuple of three."""
    if isinstance(arg, np.ndarray):
        if not arg.flags.c_contiguous:
            raise TypeError("a compiled loop takes arrays in C order")
        return f"*{arg.dtype}"
    return f"({len(arg)})" if isinstance(arg, tuple) else "i"


def _words(arg: Any) -> tuple[int, ...]:
    if isinstance(arg, np.ndarray):
        return (arg.ctypes.data,)
    return arg if isinstance(arg, tuple) else (arg,)


def _load(module: str, name: str, kinds: tuple[str, ...]) -> int:
    """The address of the region: from the cache, or compiled and put there."""
    symbol = f"{name}_{_digest(module, name, kinds)}"
    path = cache_folder() / "loops" / f"{symbol}.o"
    code = _read(path)
    if code is None:
        code, wanted = compile_region(module, name, kinds, symbol)
        if wanted - FREE:
            raise TypeError(f"{module}.{name} calls {', '.join(sorted(wanted - FREE))}")
        _keep(path, code)
    return _link(code, symbol)


def _digest(module: str, name: str, kinds: tuple[str, ...]) -> str:
    """Of all that the machine code follows from."""
    from llvmlite import binding

    digest = hashlib.sha256()
    for source in (module, __name__, *USED_BY_LOOPS):
        spec = importlib.util.find_spec(source)
        assert spec is not None and spec.origin is not None
        digest.update(Path(spec.origin).read_bytes())
    machine = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    settings = {key: value for key, value in os.environ.items() if key.startswith("NUMBA_")}
    digest.update(json.dumps([name, kinds, machine, _versions(), settings], sort_keys=True).encode())
    return digest.hexdigest()[:32]


@functools.cache
def _versions() -> list[str]:
    return [version(package) for package in ("numba", "llvmlite")]


def _link(code: bytes, symbol: str) -> int:
    from llvmlite import binding

    engine = _engine()
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(symbol)
    return address


@functools.cache
def _engine() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine()
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)


def _read(path: Path) -> bytes | None:
    """What `_keep` wrote; None where there is none, or not all of it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    """Write it beside and rename; where that cannot be, the next process compiles again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_bytes(hashlib.sha256(code).digest() + code)
