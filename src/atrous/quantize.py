"""Post-training quantisation to int8: weights per output, activations by the ranges that calibration pictures show."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atrous import checkpoint
from atrous.data.base import SegmentationDataset
from atrous.errors import InputError, choose
from atrous.evaluation import among, evaluate
from atrous.kernel_sums import keep_kernel_sums
from atrous.metrics import Metrics
from atrous.predict import Predictor
from atrous.runtimes import Exported, load, need
from atrous.runtimes.export import at_protocols_stride, export
from atrous.runtimes.folding import fold_batch_norm
from atrous.runtimes.networks import HEADER, quiet

CALIBRATION = 100  # pictures
VIEWS = 300  # at most so many inputs of the network are kept: windows, scales and flips of the pictures
LARGEST_LOSS = 0.01  # of mIoU

Progress = Callable[[str, int, int, str], None]


class Quantized(NamedTuple):
    """Scores on the same pictures by the same protocol."""

    before: Metrics
    after: Metrics

    @property
    def loss(self) -> float:
        return self.before.miou - self.after.miou


def quantize(
    model: nn.Module,
    path: Path,
    format: str,
    calibration: SegmentationDataset,
    validation: SegmentationDataset,
    *,
    limit: int | None = None,
    largest_loss: float = LARGEST_LOSS,
    progress: Progress | None = None,
) -> Quantized:
    """Write a model of `atrous.load` to `path` in int8, "onnx" or "openvino", and measure it before and after.

    The network sees what the checkpoint's protocol shows it of up to 100 pictures of `calibration`; mIoU is that of
    `validation` (its first `limit` pictures), float and int8 on the CPU. Raises InputError where a package is missing,
    and where mIoU falls by more than `largest_loss`; then no file is left.
    """
    choose("format for int8", format, FORMATS)
    suffix, package, write = FORMATS[format]
    need(package)
    among(limit, len(validation))  # before the minutes of calibration
    show = progress or (lambda *_: None)
    model = at_protocols_stride(model)
    views = views_of(model, calibration, lambda done, of: show("calibration pictures", done, of, ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        plain, start, beside = (
            Path(folder) / kind / f"{path.stem}{suffix}" for kind in ("float", "rounded", "int8")
        )
        export(model, plain, format)
        export(keep_kernel_sums(fold_batch_norm(model)), start, format)
        beside.parent.mkdir()
        float_file = load(plain)
        assert isinstance(float_file, Exported)
        header = float_file.header | {"graph": float_file.graph | {"precision": "int8"}}
        with quiet():
            write(start, beside, views, header)
        metrics = [
            _measured(network, validation, limit, title, show)
            for title, network in (("mIoU in float", float_file), ("mIoU in int8", load(beside)))
        ]
        found = Quantized(*metrics)
        if found.loss > largest_loss:
            raise InputError(
                f"{path}: not written, mIoU falls from {found.before.miou:.4f} to {found.after.miou:.4f} in int8, "
                f"more than {largest_loss:g}"
            )
        for file in sorted(beside.parent.iterdir()):
            file.replace(path.with_name(file.name))
    return found


def _measured(
    network: nn.Module, pictures: SegmentationDataset, limit: int | None, title: str, show: Progress
) -> Metrics:
    def progress(done: int, of: int, miou: float) -> None:
        show(title, done, of, f"{miou:.4f}")

    return evaluate(Predictor(network, device="cpu"), pictures, limit, progress)


def views_of(
    model: nn.Module, pictures: SegmentationDataset, progress: Callable[[int, int], None] | None = None
) -> list[NDArray[np.float32]]:
    """What the network is shown, (N, c, h, w) each, of pictures spread evenly over a data set, by its protocol."""
    recorder = Recorder(model)
    predictor = Predictor(recorder, device="cpu", runtime="eager")
    predictor.crf = None
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(CALIBRATION, len(pictures))).astype(int))
    for done, index in enumerate(chosen.tolist(), start=1):
        predictor.label_map(pictures[index].image)
        if progress:
            progress(done, len(chosen))
        if len(recorder.views) >= VIEWS:
            break
    return recorder.views


class Recorder(nn.Module):
    """Stands for a model: keeps what it is shown, and answers with scores of 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.config, self.metadata = checkpoint.config_of(model), checkpoint.metadata_of(model)
        self.align_corners = False
        self.views: list[NDArray[np.float32]] = []

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        self.views.append(x.contiguous().numpy().copy())
        return {"out": torch.zeros(len(x), self.config.num_classes, 1, 1)}

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)["out"].expand(-1, -1, *x.shape[-2:])


def _openvino(
    source: Path, target: Path, views: Sequence[NDArray[np.float32]], header: dict[str, Any]
) -> None:
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(views),
        preset=nncf.QuantizationPreset.MIXED,  # activations around 0 or above it, as each of them is
        subset_size=len(views),
    )
    model.set_rt_info(json.dumps(header), HEADER)
    openvino.save_model(model, target, compress_to_fp16=False)


def _onnx(source: Path, target: Path, views: Sequence[NDArray[np.float32]], header: dict[str, Any]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(views)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            view = next(self.rest, None)
            return None if view is None else {header["graph"]["input"]["name"]: view}

    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    content = onnx.load(target)
    kept = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    onnx.helper.set_model_props(content, kept | {HEADER: json.dumps(header)})
    onnx.save(content, target)


class Format(NamedTuple):
    """write: the float file, the int8 file, what the network is shown, and the header of the new file."""

    suffix: str
    package: str
    write: Callable[[Path, Path, Sequence[NDArray[np.float32]], dict[str, Any]], None]


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "onnxruntime", _onnx),
    "openvino": Format(".xml", "nncf", _openvino),
}
