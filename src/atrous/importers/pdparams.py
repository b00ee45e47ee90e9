"""Weights files of Paddle (.pdparams), without Paddle: a pickle of names and numpy arrays.

A pickle is a program. This one may build arrays, and nothing else: every name that it asks for is answered with a
stand-in from `ALLOWED`, or refused. The unpickler is the one in Python, whose memory grows with the file alone.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrous.errors import InputError

MOST_BYTES = 2**33
NUMBERS = "fiub"  # kinds of numpy's types that hold numbers
BIG = "UnpackBigParamInfor@@"  # where arrays above 1 GB were cut in pieces


class Refused(Exception):  # noqa: N818
    """A name that is not allowed."""


class Type:
    """Stands for numpy.dtype."""

    def __init__(self, name: str = "f4", *_: object) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in NUMBERS:
            raise ValueError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class Array:
    """Stands for numpy.ndarray while it is built."""

    def __init__(self, *_: object) -> None:
        self.values: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, column_major, data = state
        if not isinstance(kind, Type) or not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise ValueError("an array that is not made of numbers")
        if any(not isinstance(n, int) or n < 0 for n in shape) or len(shape) > 8:
            raise ValueError(f"an array of shape {shape}")
        if prod(shape) * kind.dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array of {shape}")
        values = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if column_major else "C")
        self.values = torch.from_numpy(values.astype(kind.dtype.newbyteorder("="), order="C"))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stands for _codecs.encode, by which protocol 2 writes bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError(f"text as {encoding}")
    return text.encode(encoding)


def _scalar(kind: Type, data: bytes) -> float:
    """Stands for numpy's scalar."""
    return float(np.frombuffer(data, kind.dtype)[0])


ALLOWED: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": Array,
    "numpy.dtype": Type,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    **dict.fromkeys((f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")), Array),
    **dict.fromkeys((f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")), _scalar),
    **dict.fromkeys((f"{builtins}.tuple" for builtins in ("builtins", "__builtin__")), tuple),
}


class Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"{module}.{name}")
        return found


def read_pdparams(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Names and tensors, and what lies beside them (such as "StructuredToParameterName@@").

    Raises InputError where the file is damaged or holds something else, and for a pickle that asks for more.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are more than such a file has")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        found = Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Refused as error:
        reason = f"its pickle wants to run {error}; only tensors and plain data are read, nothing was run"
        raise InputError(f"{path}: refused: {reason}") from None
    except Exception as error:  # a damaged pickle can end in any of them
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: not a readable .pdparams file ({reason})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no dictionary of weights but a {type(found).__name__}")
    if BIG in found:
        raise InputError(f"{path}: has arrays that were cut in pieces; save it with protocol=4")
    tensors: dict[str, Tensor] = {}
    extras: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, tuple) and len(value) == 2:  # (name, array)
            value = value[1]
        if isinstance(value, Array) and value.values is not None:
            tensors[str(key)] = value.values
        else:
            extras[str(key)] = value
    if not tensors:
        raise InputError(f"{path}: holds no weights")
    return tensors, extras
