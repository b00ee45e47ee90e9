"""Which runtime "auto" is: on a CPU what a short trial found the fastest here, kept beside the conversions.

    kept trial -> its winner;  else enough pictures to come -> convert, try, keep;  else torch

A process decides when it begins and keeps to it. Of several that try at the same time, the first to write decides.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from atrous.cache import cache_folder
from atrous.checkpoint import config_of
from atrous.errors import InputError
from atrous.runtimes import Exported, on_torch
from atrous.runtimes.conversion import converted, kept, stem

TRIAL = (1, 321, 321)  # pictures, height, width
ROUNDS = 3  # of which the fastest counts; one more before
# pictures from which converting and trying pays, as measured (docs/benchmarks.md)
PAYS_FROM = {"openvino": 200, "onnxruntime": 1000}


class Choice(NamedTuple):
    """milliseconds: of the trial, by runtime; empty without one. new: whether it was made just now."""

    runtime: str
    milliseconds: Mapping[str, float] = MappingProxyType({})
    new: bool = False

    def __str__(self) -> str:
        shown = ", ".join(f"{runtime} {taken:.0f} ms" for runtime, taken in self.milliseconds.items())
        return f"runtime {self.runtime} from now on (a trial at {TRIAL[1]}x{TRIAL[2]}: {shown}; in {cache_folder()})"


def choose_runtime(
    model: nn.Module,
    device: torch.device,
    precision: str = "fp32",
    source: Path | None = None,
    pictures: int | None = None,
) -> Choice:
    """What "auto" is for a model.

    "torch" on other devices, where there is no checkpoint `source` whose conversion could be kept, where the cache
    folder cannot be written, and for a model that rounds as a quantised file does, which a conversion leaves out.
    pictures: how many the network will see; None: many.
    """
    if isinstance(model, Exported):
        return Choice(model.runtime)
    if device.type != "cpu" or source is None or config_of(model).fake_quantize:
        return Choice("torch")
    others = _candidates(model, precision, source)
    note = cache_folder() / f"{stem(model, source)}-{_here(precision, others)}.json"
    if (found := _read(note)) is not None:
        return found
    others = [runtime for runtime in others if pictures is None or pictures >= PAYS_FROM[runtime]]
    if not others or not _writable(cache_folder()):
        return Choice("torch")
    milliseconds = {"torch": _trial(on_torch(model, device, precision))}
    for runtime in others:
        try:
            milliseconds[runtime] = _trial(converted(model, runtime, precision, source))
        except (InputError, RuntimeError, ImportError):  # an unknown layer, a broken installation
            continue
    fastest = Choice(min(milliseconds, key=milliseconds.__getitem__), milliseconds, new=True)
    return fastest if _write(note, fastest) else _read(note) or fastest


def _candidates(model: nn.Module, precision: str, source: Path) -> list[str]:
    """Beside torch: OpenVINO; ONNX Runtime, which takes far longer to convert, alone or where that is done already."""
    found = ["openvino"] if _there("openvino") else []
    if (
        precision == "fp32"
        and all(_there(package) for package in ("onnxruntime", "onnx", "onnxscript"))
        and (not found or kept(model, "onnxruntime", source).is_file())
    ):
        found.append("onnxruntime")
    return found


def _there(package: str) -> bool:
    """Without importing it, which takes half a second."""
    return importlib.util.find_spec(package) is not None


@torch.inference_mode()
def _trial(network: nn.Module) -> float:
    """Milliseconds of one call."""
    count, height, width = TRIAL
    x = torch.randn(count, config_of(network).in_channels, height, width)
    x = x.contiguous(memory_format=torch.channels_last)
    taken = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        network.scores(x)  # type: ignore[operator]
        taken.append(1e3 * (time.perf_counter() - start))
    return min(taken[1:])


def _here(precision: str, runtimes: list[str]) -> str:
    """A short name of what a trial's result depends on, beside the model."""
    about = [_processor(), str(torch.get_num_threads()), precision]
    about += [torch.__version__, *(f"{package} {metadata.version(package)}" for package in runtimes)]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _read(note: Path) -> Choice | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return Choice(str(content["runtime"]), dict(content["milliseconds"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or half written
        return None


def _write(note: Path, choice: Choice) -> bool:
    """False where another process was first."""
    try:
        with note.open("x", encoding="utf-8") as file:
            json.dump({"runtime": choice.runtime, "milliseconds": dict(choice.milliseconds)}, file)
    except FileExistsError:
        return False
    return True


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
