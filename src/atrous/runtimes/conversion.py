"""A checkpoint as another runtime takes it, converted once and kept in the user's cache folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from atrous.cache import cache_folder
from atrous.checkpoint import config_of, digest
from atrous.errors import InputError
from atrous.runtimes import need
from atrous.runtimes.networks import Exported, OnnxNetwork, OpenVinoNetwork

FORMATS = {"openvino": ("openvino", ".xml"), "onnxruntime": ("onnx", ".onnx")}  # runtime: format, ending


def converted(model: nn.Module, runtime: str, precision: str, source: Path | None) -> Exported:
    """The model in ONNX Runtime or OpenVINO.

    source: the checkpoint that the model is from, whose conversion is kept; without it, every call converts.
    """
    need(runtime)
    if runtime == "onnxruntime" and precision != "fp32":
        raise InputError(
            f"runtime 'onnxruntime' computes in fp32 here, not in {precision}: take openvino or torch"
        )
    format, ending = FORMATS[runtime]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{ending}" if source is None else kept(model, runtime, source)
        if not path.is_file():
            from atrous.runtimes.export import export

            export(model, path, format, "scores")
        return OpenVinoNetwork(path, precision) if runtime == "openvino" else OnnxNetwork(path)


def kept(model: nn.Module, runtime: str, source: Path) -> Path:
    """Where the conversion of a checkpoint is, or will be: by its digest and the model's output stride."""
    return cache_folder() / f"{stem(model, source)}{FORMATS[runtime][1]}"


def stem(model: nn.Module, source: Path) -> str:
    return f"{digest(source)}-os{config_of(model).output_stride}"
