"""Exported networks, each run by its own runtime, with the face of a model: picture in, logits out.

A file says all about itself: what it takes and gives, and the model's config, class names, colours, normalisation and
protocol. ONNX keeps that in its metadata, OpenVINO in rt_info, a torch program in `atrous.json` inside the file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atrous.checkpoint import parse_header
from atrous.errors import InputError
from atrous.layers import resize
from atrous.runtimes.graphs import Output

HEADER = "atrous"  # the name under which a file keeps our JSON


class Exported(nn.Module):
    """A network from a file: (N, c, H, W) float32, normalised, to logits (N, C, H, W), on the CPU.

    A file of labels takes pictures (N, 3, H, W) uint8 in `labels` alone.
    """

    runtime: str

    def __init__(self, path: Path, header: dict[str, Any] | None) -> None:
        super().__init__()
        if header is None:
            raise InputError(f"{path}: not a file that `atrous export` wrote (it has no metadata of ours)")
        try:
            self.config, self.metadata = parse_header(header, str(path))
            self.output: Output = header["graph"]["output"]
            self.smallest = int(header["graph"].get("smallest", 1))
            self.align_corners = self.config.options.get("align_corners", False)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its metadata cannot be used ({str(error).strip()})") from None
        self.path, self.header, self.graph = path, header, header["graph"]

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        if self.output == "labels":
            raise InputError(
                f"{self.path} gives labels, not scores: no probabilities, scales, flip, windows or CRF with it"
            )
        self._check_size(x)
        return {"out": torch.from_numpy(self.run(x.float().contiguous().numpy()))}

    def labels(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, H, W) labels."""
        self._check_size(images)
        return torch.from_numpy(self.run(images.contiguous().numpy()))

    def _check_size(self, x: Tensor) -> None:
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"{self.path}: a picture of {height}x{width} is too small, its sides need {self.smallest} pixels"
            )


class OnnxNetwork(Exported):
    """A .onnx file in ONNX Runtime, with as many threads as torch has."""

    runtime = "onnxruntime"

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, one for every kind of damage
            raise InputError(f"{path}: ONNX Runtime cannot read it ({_first_line(error)})") from None
        found = session.get_modelmeta().custom_metadata_map.get(HEADER)
        super().__init__(path, _parsed(path, found))
        self.session, self.input_name = session, session.get_inputs()[0].name

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = self.session.run(None, {self.input_name: x})[0]
        return result


class OpenVinoNetwork(Exported):
    """An .xml file and the .bin beside it, or a .onnx, in OpenVINO on the CPU, with as many threads as torch has.

    precision: "fp32", or "bf16", with which it computes where the processor can.
    """

    runtime = "openvino"

    def __init__(self, path: Path, precision: str = "fp32") -> None:
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            found = model.get_rt_info(HEADER).value if model.has_rt_info(HEADER) else _onnx_header(path)
            super().__init__(path, _parsed(path, found))
            settings = {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "INFERENCE_PRECISION_HINT": {"bf16": "bf16"}.get(precision, "f32"),
                "PERFORMANCE_HINT": "LATENCY",
            }
            self.compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot read it ({_first_line(error)})") from None
        self.request = self.compiled.create_infer_request()

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = self.request.infer({0: x}, share_inputs=True)[0]
        return np.array(result)  # the request's own memory is written again by the next call


class TorchProgram(Exported):
    """A .pt2 file of torch.export, run by torch."""

    runtime = "torch"

    def __init__(self, path: Path) -> None:
        extra = {f"{HEADER}.json": ""}
        try:
            with quiet():
                program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # zip, JSON and schema errors of every kind
            raise InputError(f"{path}: not a readable torch.export program ({_first_line(error)})") from None
        super().__init__(path, _parsed(path, extra[f"{HEADER}.json"]))
        # guards and bounds are of the size that it was traced with: small pictures fail them and are right all the same
        network = program.module(check_guards=False)
        for key, hook in list(network._forward_pre_hooks.items()):
            if getattr(hook, "__name__", "") == "_check_input_constraints_pre_hook":
                del network._forward_pre_hooks[key]
        self.program = network.to(memory_format=torch.channels_last)

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            picture = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            result: NDArray[Any] = self.program(picture).contiguous().numpy()
        return result


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of the libraries that export and convert, about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parsed(path: Path, text: Any) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        header = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its metadata is no JSON ({error})") from None
    return header if isinstance(header, dict) else None


def _onnx_header(path: Path) -> Any:
    if path.suffix != ".onnx":
        return None
    import onnx

    properties = onnx.load(path, load_external_data=False).metadata_props
    return next((entry.value for entry in properties if entry.key == HEADER), None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
