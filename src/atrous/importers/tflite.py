"""TFLite files as weights and operators, without TensorFlow.

Of the schema (tensorflow/compiler/mlir/lite/schema/schema.fbs) only what the networks here are made of is
read; the numbers below are its field and enum numbers. Quantised weights are `scale * (q - zero_point)`, per
tensor or per channel (https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.config import Normalization
from atrous.errors import InputError
from atrous.fake_quantize import Grid
from atrous.importers.flatbuffer import Table, read_root

# Far above what a segmentation network has, and low enough that a made-up file cannot fill the memory.
MOST_TENSORS = 10_000  # also operators and buffers
MOST_INPUTS = 100  # of an operator
MOST_DIMENSIONS = 8
MOST_LETTERS = 200  # of a name
MOST_BYTES = 2**31  # FlatBuffers' own limit

DTYPES = {0: "f4", 1: "f2", 2: "i4", 3: "u1", 4: "i8", 7: "i2", 9: "i1"}  # TensorType -> numpy
# BuiltinOperator; others are named by number
OPERATORS = {
    0: "add", 1: "average_pool_2d", 2: "concatenation", 3: "conv_2d", 4: "depthwise_conv_2d", 6: "dequantize",
    19: "relu", 21: "relu6", 22: "reshape", 23: "resize_bilinear", 25: "softmax", 34: "pad", 37: "batch_to_space_nd",
    38: "space_to_batch_nd", 40: "mean", 53: "cast", 56: "arg_max", 69: "tile", 114: "quantize",
}  # fmt: skip
PADDINGS = {0: "same", 1: "valid"}
ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the graph: its shape, type and quantisation, and its bytes where it is a constant.

    dtype: of numpy; "" for strings and the like.
    scale, zero_point: of length 0 (not quantised), 1, or one for each index along `axis`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Operator:
    """One step of the graph. inputs, outputs: numbers of tensors, -1 for an input that is left out.

    options: padding ("same", "valid"), stride, dilation and filter (height, width), activation (None, "relu",
    "relu6"), axis, align_corners, half_pixel_centers, for the operators that have them; an enum value that is not known
    here stays a number.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


class Graph:
    """The main graph of a TFLite file. Raises InputError for what is missing, damaged or no TFLite file."""

    def __init__(self, path: str | Path) -> None:
        self.where = str(path)
        model = read_root(_read(Path(path)), b"TFL3", self.where)
        graphs = model.tables(2, MOST_TENSORS)
        if not graphs:
            raise self.error("it has no graph")
        buffers = model.tables(4, MOST_TENSORS)
        names = [_operator_name(code) for code in model.tables(1, MOST_TENSORS)]
        self.tensors = [self._tensor(t, buffers) for t in graphs[0].tables(0, MOST_TENSORS)]
        self.inputs = self._tensor_numbers(graphs[0], 1)
        self.outputs = self._tensor_numbers(graphs[0], 2)
        self.operators = [self._operator(o, names) for o in graphs[0].tables(3, MOST_TENSORS)]

    def constant(self, index: int) -> NDArray[np.float32]:
        """The values of a constant tensor, de-quantised, in its own shape."""
        if index < 0 or self.tensors[index].dtype not in DTYPES.values():
            raise self.error(f"tensor {index} has no numbers that can be read here")
        tensor = self.tensors[index]
        if not self.is_whole(index):
            raise self.error(f"tensor {index} has {len(tensor.data)} bytes for shape {tensor.shape}")
        values = tensor.data.view(np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
        if len(tensor.scale):
            scale, zero_point = self._quantisation(index)
            values = (values.astype(np.float64) - zero_point) * scale
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise self.error(f"tensor {index} has values that are not finite")
        return values

    def is_whole(self, index: int) -> bool:
        """Whether a constant tensor has as many bytes as its shape says, and some."""
        tensor = self.tensors[index]
        size = prod(tensor.shape) * np.dtype(tensor.dtype or "u1").itemsize
        return 0 < size == len(tensor.data)

    def convolution(self, operator: Operator) -> tuple[Tensor, Tensor]:
        """Weight (C_out, C_in, kh, kw), depthwise (C, 1, kh, kw), and bias (C_out,) of a convolution.

        Batch norm is folded into both. TFLite keeps (C_out, kh, kw, C_in), depthwise (1, kh, kw, C).
        """
        if len(operator.inputs) < 2:
            raise self.error(f"a {operator.name} has no weights")
        weight = self.constant(operator.inputs[1])
        if weight.ndim != 4:
            raise self.error(f"a {operator.name} has weights of shape {weight.shape}")
        weight = weight.transpose((3, 0, 1, 2) if operator.name == "depthwise_conv_2d" else (0, 3, 1, 2))
        bias = np.zeros(len(weight), np.float32)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = self.constant(operator.inputs[2])
        if bias.shape != (len(weight),):
            raise self.error(f"a {operator.name} has {len(weight)} channels and a bias of {bias.shape}")
        return torch.from_numpy(np.ascontiguousarray(weight)), torch.from_numpy(bias.copy())

    def normalization(self) -> Normalization:
        """What the graph expects of a picture in 0..255: its input's quantisation where it takes bytes.

        Float inputs are those of Google's mobile networks, -1..1.
        """
        if not self.inputs or self.inputs[0] < 0:
            raise self.error("it has no input")
        dtype = self.tensors[self.inputs[0]].dtype
        if dtype not in ("u1", "i1"):
            return Normalization((0.5,) * 3, (0.5,) * 3)
        scales, zero_points = self._quantisation(self.inputs[0])
        if scales.size != 1:
            raise self.error("its input is not quantised by one scale")
        lowest = int(np.iinfo(dtype).min)  # stands for the picture's 0
        mean, std = (zero_points.item() - lowest) / 255, 1 / (255 * scales.item())
        return Normalization((round(mean, 6),) * 3, (round(std, 6),) * 3)  # the scale is a float32

    def grid(self, index: int) -> Grid | None:
        """(scale, zero point, lowest, highest) of a tensor of bytes; None where it is not of one scale."""
        tensor = self.tensors[index]
        if tensor.dtype not in ("u1", "i1") or len(tensor.scale) != 1:
            return None
        scales, zero_points = self._quantisation(index)
        limits = np.iinfo(tensor.dtype)
        zero_point = int(zero_points.item())
        if not limits.min <= zero_point <= limits.max:
            raise self.error(f"tensor {index} has a zero point of {zero_point}")
        return float(scales.item()), zero_point, int(limits.min), int(limits.max)

    def error(self, reason: str) -> InputError:
        return InputError(f"{self.where}: not a TFLite file that can be used here: {reason}")

    def _quantisation(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scale and zero point, shaped so that they spread over the tensor."""
        tensor = self.tensors[index]
        along = [1] * len(tensor.shape)
        if len(tensor.scale) > 1 and tensor.axis < len(along):
            along[tensor.axis] = tensor.shape[tensor.axis]
        zero_point = tensor.zero_point if len(tensor.zero_point) else np.zeros(len(tensor.scale), np.int64)
        if not len(tensor.scale) == len(zero_point) == prod(along):
            raise self.error(f"tensor {index} has {len(tensor.scale)} scales for shape {tensor.shape}")
        if not (np.isfinite(tensor.scale) & (tensor.scale > 0)).all():
            raise self.error(f"tensor {index} has a scale that is no positive number")
        return tensor.scale.astype(np.float64).reshape(along), zero_point.reshape(along)

    def _tensor(self, table: Table, buffers: list[Table]) -> TensorInfo:
        shape = tuple(table.numbers(0, "i4")[: MOST_DIMENSIONS + 1].tolist())
        dtype, buffer = DTYPES.get(table.number(1, "b"), ""), table.number(2, "I")
        if len(shape) > MOST_DIMENSIONS or any(n < 0 for n in shape) or buffer >= len(buffers):
            raise self.error(f"a tensor of shape {shape} in buffer {buffer} of {len(buffers)}")
        quantisation = table.table(4)
        return TensorInfo(
            name=bytes(table.numbers(3, "u1")[:MOST_LETTERS]).decode(errors="replace"),
            shape=shape,
            dtype=dtype,
            scale=quantisation.numbers(2, "f4") if quantisation else np.empty(0, np.float32),
            zero_point=quantisation.numbers(3, "i8") if quantisation else np.empty(0, np.int64),
            axis=max(0, quantisation.number(6, "i")) if quantisation else 0,
            data=buffers[buffer].numbers(0, "u1"),
        )

    def _operator(self, table: Table, names: list[str]) -> Operator:
        code = table.number(0, "I")
        if code >= len(names):
            raise self.error(f"an operator of kind {code}, of {len(names)}")
        inputs, outputs = self._tensor_numbers(table, 1), self._tensor_numbers(table, 2)
        return Operator(names[code], inputs, outputs, _options(names[code], table.table(4)))

    def _tensor_numbers(self, table: Table, field: int) -> tuple[int, ...]:
        numbers = table.numbers(field, "i4")
        if len(numbers) > MOST_INPUTS or ((numbers < -1) | (numbers >= len(self.tensors))).any():
            raise self.error(f"an operator has {len(numbers)} inputs, or one that is not there")
        return tuple(numbers.tolist())


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size >= MOST_BYTES:
            raise InputError(f"{path}: too large for a TFLite file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _operator_name(code: Table) -> str:
    """Old files have the number in a byte, field 0; new ones in field 3, where it may be larger."""
    number = max(code.number(0, "b"), code.number(3, "i"))
    return OPERATORS.get(number, f"operator {number}")


def _options(name: str, table: Table | None) -> dict[str, Any]:
    if table is None:
        return {}
    if name == "add":
        return {"activation": _known(ACTIVATIONS, table.number(0, "b"))}
    if name == "average_pool_2d":
        return {
            "padding": _known(PADDINGS, table.number(0, "b")),
            "stride": (table.number(2, "i"), table.number(1, "i")),
            "filter": (table.number(4, "i"), table.number(3, "i")),
            "activation": _known(ACTIVATIONS, table.number(5, "b")),
        }
    if name == "concatenation":
        return {"axis": table.number(0, "i"), "activation": _known(ACTIVATIONS, table.number(1, "b"))}
    if name == "resize_bilinear":
        return {
            "align_corners": bool(table.number(2, "B")),
            "half_pixel_centers": bool(table.number(3, "B")),
        }
    if name not in ("conv_2d", "depthwise_conv_2d"):
        return {}
    after = 1 if name == "depthwise_conv_2d" else 0  # it has its depth multiplier in between
    return {
        "padding": _known(PADDINGS, table.number(0, "b")),
        "stride": (table.number(2, "i"), table.number(1, "i")),
        "activation": _known(ACTIVATIONS, table.number(3 + after, "b")),
        "dilation": (table.number(5 + after, "i", 1), table.number(4 + after, "i", 1)),
    }


def _known(names: dict[int, Any], number: int) -> Any:
    return names.get(number, number)
