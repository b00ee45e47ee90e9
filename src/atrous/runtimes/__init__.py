"""What runs a network: torch with its batch norm folded, a torch.export program, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import nn

from atrous import checkpoint
from atrous.checkpoint import config_of
from atrous.errors import InputError, choose
from atrous.kernels.quick_inference import with_quick_inference
from atrous.runtimes.folding import fold_batch_norm
from atrous.runtimes.networks import Exported, OnnxNetwork, OpenVinoNetwork, TorchProgram

__all__ = ["RUNTIMES", "Exported", "fold_batch_norm", "installed", "load", "need", "prepare", "read_metadata"]

FILES: dict[str, type[OnnxNetwork] | type[OpenVinoNetwork] | type[TorchProgram]] = {
    ".onnx": OnnxNetwork,
    ".xml": OpenVinoNetwork,
    ".pt2": TorchProgram,
}
RUNTIMES = ("auto", "eager", "torch", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")


def read_metadata(path: str | Path = checkpoint.BOX) -> checkpoint.Metadata:
    """What a checkpoint or a file of `atrous export` says besides its weights; they are read for the latter alone."""
    if checkpoint.locate(path).suffix not in FILES:
        return checkpoint.read_metadata(path)
    return checkpoint.metadata_of(load(path))


def load(path: str | Path = checkpoint.BOX) -> nn.Module:
    """A checkpoint, or a file of `atrous export` (.onnx, .xml, .pt2) ready to run.

    InputError where it is missing or damaged, or its runtime is not installed.
    """
    path = checkpoint.locate(path)
    if path.suffix not in FILES:
        return checkpoint.load(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    network = FILES[path.suffix]
    need(network.runtime)
    return network(path)


def prepare(
    model: nn.Module,
    device: torch.device,
    runtime: str = "auto",
    precision: str = "fp32",
    source: Path | None = None,
    pictures: int | None = None,
) -> nn.Module:
    """The model as it runs with the same logits in a runtime, on `device`, in eval mode.

    runtime: "eager" is the model itself, moved there; "torch" a copy with batch norm folded; "onnxruntime" and
    "openvino" convert it, once for a checkpoint (`source`), into the user's cache folder. "auto" is the fastest of
    them here, see `choice.choose_runtime`. precision: "bf16" computes in bfloat16, twice as fast where the hardware
    has it, with scores that differ in the third digit.

    What was exported already runs as it is. Raises InputError for an unknown name, or a runtime that is not installed
    or has no place on `device`.
    """
    choose("runtime", runtime, RUNTIMES)
    choose("precision", precision, PRECISIONS)
    if isinstance(model, Exported):
        if runtime not in ("auto", model.runtime):
            raise InputError(f"{model.path} is run by {model.runtime}, not by {runtime}")
        return model
    if runtime == "auto":
        from atrous.runtimes.choice import choose_runtime

        runtime = choose_runtime(model, device, precision, source, pictures).runtime
    if runtime == "eager":
        if precision != "fp32":
            raise InputError(f"runtime 'eager' is the model as it is, not in {precision}: take torch")
        return model.to(device).to(memory_format=torch.channels_last).eval()
    if runtime == "torch":
        return on_torch(model, device, precision)
    if device.type != "cpu":
        raise InputError(f"runtime {runtime!r} runs on the CPU: give --device cpu, or --runtime torch")
    from atrous.runtimes.conversion import converted

    return converted(model, runtime, precision, source)


def on_torch(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """A copy with batch norm folded, channels last; on a CPU with the convolutions of `quick_inference`."""
    model = fold_batch_norm(model).to(device).to(memory_format=torch.channels_last).eval()
    if device.type == "cpu":
        model = with_quick_inference(model)
    return HalfPrecision(model) if precision == "bf16" else model


class HalfPrecision(nn.Module):
    """A model that computes in bfloat16 and gives float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.align_corners = model.bfloat16(), model.align_corners
        self.config = config_of(model)

    def scores(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.model.scores(x.bfloat16())["out"].float()}  # type: ignore[operator]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from atrous.layers import resize

        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)  # type: ignore[arg-type]


def installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def need(*packages: str) -> None:
    """InputError with the pip command where one of the packages is not installed."""
    for package in packages:
        if not installed(package):
            raise InputError(f"{package} is not installed: pip install 'atrous[export]'")
