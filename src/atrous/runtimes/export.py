"""`atrous export --format`: a model as one file for a runtime, checked against the model before it is left behind."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from atrous import checkpoint
from atrous.config import Protocol
from atrous.errors import InputError, choose
from atrous.fake_quantize import without_rounding
from atrous.models import Model, at_output_stride, smallest_picture
from atrous.runtimes import load, need
from atrous.runtimes.folding import fold_batch_norm
from atrous.runtimes.graphs import LabelMaps, Logits, Output, Scores
from atrous.runtimes.networks import HEADER, Exported, quiet

TOLERANCE = 1e-3  # largest difference of a logit that a file is left with
# pictures, height, width; all sides grow alike for a model that does not take the smallest of them
Size = tuple[int, int, int]
EXAMPLE: Size = (2, 75, 97)  # that the graph is traced with: no two of them alike, no side even
CHECKED: tuple[Size, ...] = ((1, 64, 64), (2, 97, 65), (1, 33, 160))  # of the check, odd ones too
OPSET = 20  # ONNX; the newest that ONNX Runtime 1.17 (2024) reads


class Parity(NamedTuple):
    """How far an exported file is from its model: the largest difference of a logit, over `sizes` (N, H, W), and the
    largest logit there.

    For labels: the share of pixels with another label, and the difference is the largest margin that the model gave
    its own label over the file's.
    """

    difference: float
    other_labels: float
    sizes: tuple[Size, ...]
    largest_logit: float

    @property
    def holds(self) -> bool:
        """Whether it is float32's rounding: 1e-3; for logits beyond a hundred, which nobody trained, in proportion."""
        return self.difference <= TOLERANCE * max(1, self.largest_logit / 100)

    def __str__(self) -> str:
        sizes = ", ".join(f"{n}x{h}x{w}" for n, h, w in self.sizes)
        labels = f", {self.other_labels:.4%} of labels (near ties)" if self.other_labels else ""
        return f"largest difference {self.difference:.1e} of logits up to {self.largest_logit:.3g}{labels} at {sizes}"


def export(model: nn.Module, path: Path, format: str, output: Output = "logits") -> Parity:
    """Write a model of `atrous.load` to `path` as "onnx", "openvino" or "torch" (torch.export).

    Batch and size stay open; the output stride is the protocol's, where that names one. output: "logits" at the
    picture's size, "labels" (uint8 picture in, labels out), or "scores" on the network's own grid. OpenVINO writes two
    files, .xml and .bin.

    Raises InputError where a package is missing, for a model with a CRF as its last layer, and where the file's logits
    differ from the model's by more than 1e-3; then no file is left. The rounding of a quantised file that was imported
    (`fake_quantize`) is left out, on both sides.
    """
    choose("format", format, FORMATS)
    need(*FORMATS[format].packages)
    model = at_protocols_stride(model)
    config = checkpoint.config_of(model)
    if getattr(model, "crf", None) is not None:
        raise InputError(f"{config.name} with the CRF as a layer (crf=...) cannot be exported: set crf=False")
    if output == "labels" and config.in_channels != 3:
        raise InputError(f"labels are of RGB pictures; this model takes {config.in_channels} channels")
    metadata = checkpoint.metadata_of(model)
    if output == "labels":
        metadata = replace(metadata, protocol=Protocol())  # what is inside the graph
    model = model.cpu().eval()
    if config.fake_quantize:
        model, config = without_rounding(model), replace(config, fake_quantize={})
    graph = _graph(fold_batch_norm(model), output, config, metadata)
    header = checkpoint.header_of(config, metadata, str(path))
    smallest = smallest_picture(model)
    header["graph"] = _about(output, config.in_channels, config.num_classes, smallest)
    path.parent.mkdir(parents=True, exist_ok=True)
    example = _example(output, config.in_channels, smallest)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        beside = Path(folder) / path.name
        for write in FORMATS[format].ways:
            with quiet(), _silent_loggers():
                write(graph, example, beside, header)
            parity = compare(model, _graph(model, output, config, metadata), beside, output)
            if parity.holds:
                break
        else:
            raise InputError(f"{path}: not written, its logits are not the model's ({parity})")
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml, without which it is not read
            file.replace(path.with_name(file.name))
    return parity


def at_protocols_stride(model: nn.Module) -> nn.Module:
    """The model at the output stride that its protocol names: a file has no other."""
    stride = checkpoint.metadata_of(model).protocol.output_stride
    return model if stride is None else at_output_stride(cast(Model, model), stride)


def compare(
    model: nn.Module,
    graph: nn.Module,
    path: Path,
    output: Output,
    sizes: Sequence[Size] = CHECKED,
) -> Parity:
    """The file beside the graph that it was made from, on random pictures of several sizes, grown where they must."""
    exported = load(path)
    assert isinstance(exported, Exported)
    sizes = _grown(sizes, smallest_picture(model))
    generator = torch.Generator().manual_seed(0)
    channels = exported.config.in_channels
    difference, largest, others, pixels = 0.0, 0.0, 0, 0
    for count, height, width in sizes:
        shape = count, channels, height, width
        with torch.inference_mode():
            if output != "labels":
                x = torch.randn(shape, generator=generator)
                found = torch.from_numpy(exported.run(x.numpy()))
                expected = graph(x)
                largest = max(largest, float(expected.abs().max()))
                worst = float((found - expected).abs().max())
                difference = float(np.maximum(difference, worst))  # NaN stays
                continue
            x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            found, logits = exported.labels(x).long(), _label_logits(graph, x)
            largest, label = max(largest, float(logits.abs().max())), logits.argmax(1)
            margin = logits.gather(1, label[:, None]) - logits.gather(1, found[:, None])
            difference = max(difference, float(margin.max()))
            others, pixels = others + int((found != label).sum()), pixels + label.numel()
    return Parity(difference, others / max(pixels, 1), sizes, largest)


def _grown(sizes: Sequence[Size], smallest: int) -> tuple[Size, ...]:
    """All sides larger by one even number, so that none is below `smallest`: they differ as before, odd stays odd."""
    lack = smallest - min(side for _, *sides in sizes for side in sides)
    more = max(0, lack + lack % 2)
    return tuple((count, height + more, width + more) for count, height, width in sizes)


def _label_logits(graph: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(graph, LabelMaps)
    return graph.logits(x)


def _graph(model: nn.Module, output: Output, config: Any, metadata: checkpoint.Metadata) -> nn.Module:
    if output == "scores":
        return Scores(model).eval()
    if output == "logits":
        return Logits(model).eval()
    align_corners: Any = model.align_corners
    return LabelMaps(
        model, metadata.normalization, config.output_stride, config.num_classes, align_corners
    ).eval()


def _about(output: Output, channels: int, classes: int, smallest: int) -> dict[str, Any]:
    """What a person, or another program, needs to call the file."""
    normalised = (
        "RGB, (value / 255 - mean) / std of `normalization`" if channels == 3 else "normalised channels"
    )
    of_logits = {"name": "image", "type": "float32", "shape": ["N", channels, "H", "W"], "values": normalised}
    of_labels = {"name": "image", "type": "uint8", "shape": ["N", 3, "H", "W"], "values": "RGB, 0 to 255"}
    grid = ["N", classes, "h", "w"] if output == "scores" else ["N", classes, "H", "W"]
    labels = {"name": "labels", "type": "uint8" if classes <= 256 else "int32", "shape": ["N", "H", "W"]}
    return {
        "output": output,
        "input": of_labels if output == "labels" else of_logits,
        "result": labels if output == "labels" else {"name": output, "type": "float32", "shape": grid},
        "smallest": smallest,  # height and width that it needs
        "precision": "fp32",
    }


def _example(output: Output, channels: int, smallest: int) -> Tensor:
    ((count, height, width),) = _grown([EXAMPLE], smallest)
    example = torch.rand(count, channels, height, width)
    return (example * 255).to(torch.uint8) if output == "labels" else example


def _program(graph: nn.Module, example: Tensor) -> ExportedProgram:
    open_sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={"image": open_sizes}, strict=False)


def _write_torch(graph: nn.Module, example: Tensor, path: Path, header: dict[str, Any]) -> None:
    program = _program(graph, example)
    torch.export.save(program, path, extra_files={f"{HEADER}.json": json.dumps(header)})


def _write_onnx(graph: nn.Module, example: Tensor, path: Path, header: dict[str, Any]) -> None:
    import onnx

    about = header["graph"]
    traced = torch.onnx.export(
        _program(graph, example),
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=[about["input"]["name"]],
        output_names=[about["result"]["name"]],
        optimize=True,
        verbose=False,
    )
    assert traced is not None
    content = traced.model_proto
    for value, spec in ((content.graph.input[0], about["input"]), (content.graph.output[0], about["result"])):
        for axis, name in zip(value.type.tensor_type.shape.dim, spec["shape"], strict=True):
            if isinstance(name, str):
                axis.dim_param = name
    about["opset"] = next(entry.version for entry in content.opset_import if not entry.domain)
    entries = {
        HEADER: header,
        "class_names": header["labels"]["names"],
        "palette": header["labels"]["palette"],
    }
    entries |= {"normalization": header["normalization"], "input": about["input"], "output": about["result"]}
    onnx.helper.set_model_props(content, {key: json.dumps(value) for key, value in entries.items()})
    onnx.save(content, path)


def _write_openvino(graph: nn.Module, example: Tensor, path: Path, header: dict[str, Any]) -> None:
    """By OpenVINO's own reader of traced modules: a second, where the way over ONNX takes five to eight.

    A trace knows only tensors: where a model computes sizes in Python, as TensorFlow's padding does, the graph is that
    of the example's size, and fails the check.
    """
    import openvino

    with torch.no_grad():
        model = openvino.convert_model(torch.jit.trace(graph, (example,), check_trace=False))
    about = header["graph"]
    model.reshape(openvino.PartialShape([-1 if isinstance(n, str) else n for n in about["input"]["shape"]]))
    model.inputs[0].get_tensor().set_names({about["input"]["name"]})
    model.outputs[0].get_tensor().set_names({about["result"]["name"]})
    _save_openvino(model, path, header)


def _write_openvino_over_onnx(graph: nn.Module, example: Tensor, path: Path, header: dict[str, Any]) -> None:
    need("onnx", "onnxscript")
    import openvino

    traced = path.with_suffix(".onnx")
    _write_onnx(graph, example, traced, header)
    model = openvino.Core().read_model(traced)
    _save_openvino(model, path, header)
    del model  # it may map the file
    traced.unlink()


def _save_openvino(model: Any, path: Path, header: dict[str, Any]) -> None:
    import openvino

    model.set_rt_info(json.dumps(header), HEADER)
    openvino.save_model(model, path, compress_to_fp16=False)


Write = Callable[[nn.Module, Tensor, Path, dict[str, Any]], None]


class Format(NamedTuple):
    """ways: the quickest first; the next one where the file of the one before is not the model."""

    suffix: str
    packages: tuple[str, ...]
    ways: tuple[Write, ...]


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), (_write_onnx,)),
    "openvino": Format(".xml", ("openvino",), (_write_openvino, _write_openvino_over_onnx)),
    "torch": Format(".pt2", (), (_write_torch,)),
}


@contextmanager
def _silent_loggers() -> Any:
    """Without the progress lines that the exporters log as warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
