import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers.files import Content
from atrous.importers.mobile_deeplab import convert
from atrous.importers.tflite import Graph
from atrous.layers import SameConv2d
from importers.files import mutations, write_file


def byte(number: int) -> bytes:
    return struct.pack("<b", number)


def word(number: int) -> bytes:
    return struct.pack("<i", number)


def tensor(
    shape: list[int], kind: int, buffer: int, scale: list[float], zero: list[int], axis: int = 0
) -> Any:
    quantisation = {2: np.array(scale, "<f4"), 3: np.array(zero, "<i8"), 6: word(axis)}
    return {0: np.array(shape, "<i4"), 1: byte(kind), 2: word(buffer), 4: quantisation}


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """A depthwise convolution of 2 channels, stride 2, ReLU6, quantised per channel."""
    weights = np.arange(-9, 9).astype("i1")  # (1, 3, 3, 2)
    bias = np.array([10, -20], "<i4")
    tensors = [
        tensor([1, 8, 12, 2], 3, 0, [1 / 128], [128]),
        tensor([1, 3, 3, 2], 9, 1, [0.5, 0.25], [0, 0], axis=3),
        tensor([2], 2, 2, [0.1, 0.2], [0, 0]),
        tensor([1, 4, 4, 2], 9, 0, [0.1], [-128]),
    ]
    options = {0: byte(0), 1: word(3), 2: word(2), 3: word(1), 4: byte(3), 5: word(5), 6: word(4)}
    operator = {
        0: word(0),
        1: np.array([0, 1, 2], "<i4"),
        2: np.array([3], "<i4"),
        3: byte(2),
        4: options,
    }
    graph = {0: tensors, 1: np.array([0], "<i4"), 2: np.array([3], "<i4"), 3: [operator]}
    buffers = [{}, {0: weights.view("u1")}, {0: bias.view("u1")}]
    path = tmp_path / "small.tflite"
    path.write_bytes(write_file({0: word(3), 1: [{0: byte(4)}], 2: [graph], 4: buffers}))
    return path


def test_a_file_by_hand(small_file: Path) -> None:
    graph = Graph(small_file)
    assert (graph.inputs, graph.outputs) == ((0,), (3,))
    [operator] = graph.operators
    assert (operator.name, operator.inputs, operator.outputs) == ("depthwise_conv_2d", (0, 1, 2), (3,))
    assert operator.options == {
        "padding": "same",
        "stride": (2, 3),
        "activation": "relu6",
        "dilation": (4, 5),
    }
    weight, bias = graph.convolution(operator)
    assert weight.shape == (2, 1, 3, 3)
    assert weight[0].flatten().tolist() == [0.5 * q for q in range(-9, 9, 2)]
    assert weight[1].flatten().tolist() == [0.25 * q for q in range(-8, 10, 2)]
    torch.testing.assert_close(bias, torch.tensor([1.0, -4.0]))
    assert graph.normalization() == Normalization((0.501961,) * 3, (0.501961,) * 3)  # (p - 128) / 128


def test_what_is_said_of_other_files(tmp_path: Path, small_file: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.tflite: cannot be read \(No such file"):
        Graph(tmp_path / "nothing.tflite")
    (tmp_path / "photo.tflite").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match=r"photo.tflite: not a FlatBuffers file"):
        Graph(tmp_path / "photo.tflite")
    with pytest.raises(InputError, match="0 means over the whole picture"):
        convert(Content(str(small_file), "tflite"))


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@torch.no_grad()
def test_every_convolution_is_that_of_the_runtime(imagenet_file: Path) -> None:
    """From the runtime's own input of each layer to its output: only its rounding, half a step."""
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(
        str(imagenet_file),
        num_threads=1,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    rows = np.arange(224, dtype=np.uint8)[:, None, None]
    picture = (rows * np.array([1, 2, 3], np.uint8) ^ rows.transpose(1, 0, 2)).astype(np.uint8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
    interpreter.invoke()
    steps = {info["index"]: info["quantization"] for info in interpreter.get_tensor_details()}

    def values(index: int) -> torch.Tensor:
        scale, zero_point = steps[index]
        real = (interpreter.get_tensor(index).astype(np.float32) - zero_point) * scale
        return torch.from_numpy(real).permute(0, 3, 1, 2)

    graph = Graph(imagenet_file)
    operators = [op for op in graph.operators if "conv_2d" in op.name]
    assert len(operators) == 53  # the backbone's 51, the 1x1 to 1280 channels, the classifier
    for operator in operators:
        weight, bias = graph.convolution(operator)
        x, expected = values(operator.inputs[0]), values(operator.outputs[0])
        groups = x.shape[1] if operator.name == "depthwise_conv_2d" else 1
        conv = SameConv2d(
            x.shape[1], len(weight), weight.shape[-1], operator.options["stride"], groups=groups
        )
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
        y = conv(x).clamp(0, 6) if operator.options["activation"] == "relu6" else conv(x)
        y = y.clamp(expected.min(), expected.max())  # what the quantised output cannot hold
        assert float((y - expected).abs().max()) < 0.51 * steps[operator.outputs[0]][0]


def test_damaged_small_files(small_file: Path, tmp_path: Path) -> None:
    """Every field of the small file is hit; the convolution is read too."""
    path = tmp_path / "damaged.tflite"
    failures = 0
    for data in mutations(small_file.read_bytes(), 500):
        path.write_bytes(data)
        try:
            graph = Graph(path)
            graph.normalization()
            for operator in graph.operators:
                graph.convolution(operator)
        except InputError as error:
            assert str(error).startswith(str(path))
            failures += 1
    assert failures > 300
