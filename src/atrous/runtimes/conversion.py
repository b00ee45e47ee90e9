"""A checkpoint as another runtime takes it, converted once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from torch import nn

from atrous.errors import InputError
from atrous.runtimes import installed, need
from atrous.runtimes.networks import Exported, OnnxNetwork, OpenVinoNetwork

CONVERTED = ("openvino", "onnxruntime")  # the fastest first, as measured (docs/benchmarks.md)


def converted(model: nn.Module, runtime: str, precision: str, source: Path | None) -> Exported | None:
    """The model in ONNX Runtime or OpenVINO; "auto" takes what is there already and returns None where nothing is.

    source: the checkpoint that the model is from, whose conversion is kept; without it, every call converts.
    """
    if runtime == "auto" and (source is None or precision != "fp32" or not cache_folder().is_dir()):
        return None
    kept = None if source is None else cache_folder() / f"{_digest(source)}.onnx"
    if runtime == "auto":
        if kept is None or not kept.is_file():
            return None
        found = next((name for name in CONVERTED if installed(name)), None)
        if found is None:
            return None
        runtime = found
    need(runtime)
    if runtime == "onnxruntime" and precision != "fp32":
        raise InputError(
            f"runtime 'onnxruntime' computes in fp32 here, not in {precision}: take openvino or torch"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = kept or Path(folder) / "model.onnx"
        if not path.is_file():
            from atrous.runtimes.export import export

            export(model, path, "onnx", "scores")
        return OpenVinoNetwork(path, precision) if runtime == "openvino" else OnnxNetwork(path)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/atrous, by default ~/.cache/atrous."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atrous"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
