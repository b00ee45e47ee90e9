"""Small TFLite files of our own models, written as Google's converters write theirs."""

from __future__ import annotations

import struct
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from importers.files import write_file

CODES = {
    "add": 0, "average_pool_2d": 1, "concatenation": 2, "conv_2d": 3, "depthwise_conv_2d": 4, "dequantize": 6,
    "logistic": 14, "relu": 19, "relu6": 21, "resize_bilinear": 23, "pad": 34, "batch_to_space_nd": 37,
    "space_to_batch_nd": 38, "arg_max": 56,
}  # fmt: skip
FLOAT, HALF, INT32, UINT8, INT8 = 0, 1, 2, 3, 9
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 3}


def byte(number: int) -> bytes:
    return struct.pack("<b", number)


def word(number: int) -> bytes:
    return struct.pack("<i", number)


class Writer:
    """A graph that grows operator by operator. Tensors go by number; their shapes are (1, H, W, C).

    rounded: weights as int8 per channel. batches: dilation by space_to_batch. activations: "fused", "apart" (operators
    of their own), or "range" (in the quantisation of the output alone). explicit_pad: a pad operator for "same" or
    "symmetric". half: weights as float16.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        rounded: bool = False,
        batches: bool = False,
        activations: str = "fused",
        explicit_pad: str = "",
        half: bool = False,
        corners: tuple[bool, bool] = (True, False),
    ) -> None:
        self.rounded, self.batches, self.activations = rounded, batches, activations
        self.explicit_pad, self.corners, self.half = explicit_pad, corners, half
        self.shapes: list[tuple[int, ...]] = []
        self.tensors: list[dict[int, Any]] = []
        self.buffers: list[dict[int, Any]] = [{}]
        self.operators: list[dict[int, Any]] = []
        self.names = list(CODES)
        self.input = self.tensor((1, *size, 3), UINT8, [1 / 127.5], [127])

    def tensor(
        self,
        shape: tuple[int, ...],
        kind: int = FLOAT,
        scale: Any = (),
        zero: Any = (),
        data: Any = None,
        axis: int = 0,
    ) -> int:
        name = f"tensor_{len(self.tensors)}"
        fields: dict[int, Any] = {
            0: np.array(shape, "<i4"),
            1: byte(kind),
            3: np.frombuffer(name.encode(), np.uint8),
        }
        if len(scale):
            fields[4] = {2: np.array(scale, "<f4"), 3: np.array(zero, "<i8"), 6: word(axis)}
        if data is not None:
            fields[2] = word(len(self.buffers))
            self.buffers.append({0: np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)})
        self.shapes.append(tuple(shape))
        self.tensors.append(fields)
        return len(self.tensors) - 1

    def integers(self, values: Any) -> int:
        values = np.array(values, "<i4")
        return self.tensor(values.shape, INT32, data=values)

    def operator(
        self, name: str, inputs: list[int], output: int, options: dict[int, Any] | None = None
    ) -> int:
        fields = {
            0: word(self.names.index(name)),
            1: np.array(inputs, "<i4"),
            2: np.array([output], "<i4"),
        }
        if options is not None:
            fields |= {3: byte(1), 4: options}
        self.operators.append(fields)
        return output

    def conv(self, x: int, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: str | None) -> int:
        """A convolution with its batch norm folded into it."""
        weight, bias = folded(conv, norm)
        name = "depthwise_conv_2d" if conv.groups > 1 else "conv_2d"
        weight = weight.transpose(1, 2, 3, 0) if conv.groups > 1 else weight.transpose(0, 2, 3, 1)
        stride, rate, kernel = conv.stride[0], conv.dilation[0], conv.kernel_size[0]
        _, height, width, _ = self.shapes[x]
        shape = (1, -(-height // stride), -(-width // stride), conv.out_channels)
        in_batches = self.batches and rate > 1
        if in_batches:
            reach = rate * (kernel - 1) // 2
            more = [-(side + 2 * reach) % rate for side in (height, width)]
            around = self.integers([[reach, reach + m] for m in more])
            block = self.integers([rate, rate])
            grids = [(side + 2 * reach + m) // rate for side, m in zip((height, width), more, strict=True)]
            tensor = self.tensor((rate**2, *grids, self.shapes[x][3]))
            x = self.operator("space_to_batch_nd", [x, block, around], tensor)
            out_shape = (rate**2, *(side - kernel + 1 for side in grids), conv.out_channels)
            crops = self.integers([[0, m] for m in more])
        else:
            out_shape = shape
        padding = 1 if in_batches else 0
        if self.explicit_pad and kernel > 1 and not in_batches:
            pads = []
            for side in (height, width):
                reach = rate * (kernel - 1)
                zeros = max(0, reach + 1 - stride + -side % stride)
                same, symmetric = [zeros // 2, zeros - zeros // 2], [reach // 2, reach // 2]
                pads.append(same if self.explicit_pad == "same" else symmetric)
            grown = (1, height + sum(pads[0]), width + sum(pads[1]), self.shapes[x][3])
            x = self.operator("pad", [x, self.integers([[0, 0], *pads, [0, 0]])], self.tensor(grown))
            padding = 1
        constants = self.weights(weight, bias, 3 if conv.groups > 1 else 0)
        fused = ACTIVATIONS[activation if self.activations == "fused" else None]
        rates = [1, 1] if in_batches else [rate, rate]
        numbers = [padding, stride, stride, *([1] if conv.groups > 1 else []), fused, *rates]
        fields = [byte(n) if i in (0, len(numbers) - 3) else word(n) for i, n in enumerate(numbers)]
        by_range = self.activations == "range" and activation
        scale = ([6 / 255 if activation == "relu6" else 0.1], [-128]) if by_range else ((), ())
        output = self.tensor(out_shape, INT8 if by_range else FLOAT, *scale)
        y = self.operator(name, [x, *constants], output, dict(enumerate(fields)))
        if in_batches:
            y = self.operator("batch_to_space_nd", [y, block, crops], self.tensor(shape))
        if self.activations == "apart" and activation:
            y = self.operator(activation, [y], self.tensor(shape))
        return y

    def weights(self, weight: Any, bias: Any, axis: int) -> list[int]:
        if self.half:
            stored = [self.tensor(v.shape, HALF, data=v.astype("<f2")) for v in (weight, bias)]
            return [self.operator("dequantize", [t], self.tensor(self.shapes[t])) for t in stored]
        if not self.rounded:
            return [
                self.tensor(weight.shape, data=weight.astype("<f4")),
                self.tensor(bias.shape, data=bias.astype("<f4")),
            ]
        scale = np.abs(weight).max(axis=tuple(i for i in range(4) if i != axis)) / 127 + 1e-9
        along = [-1 if i == axis else 1 for i in range(4)]
        rounded = np.round(weight / scale.reshape(along)).astype("i1")
        zero = np.zeros(len(scale), "<i8")
        steps = scale * 0.01
        return [
            self.tensor(weight.shape, INT8, scale, zero, rounded, axis),
            self.tensor(bias.shape, INT32, steps, zero, np.round(bias / steps).astype("<i4")),
        ]

    def add(self, a: int, b: int) -> int:
        return self.operator("add", [a, b], self.tensor(self.shapes[a]), {0: byte(0)})

    def pool(self, x: int) -> int:
        _, height, width, channels = self.shapes[x]
        options = {0: byte(1), 1: word(width), 2: word(height), 3: word(width), 4: word(height)}
        return self.operator("average_pool_2d", [x], self.tensor((1, 1, 1, channels)), options)

    def resize(self, x: int, size: tuple[int, ...]) -> int:
        output = self.tensor((1, *size, self.shapes[x][3]))
        options = {2: struct.pack("<?", self.corners[0]), 3: struct.pack("<?", self.corners[1])}
        return self.operator("resize_bilinear", [x, self.integers(size)], output, options)

    def concatenate(self, inputs: list[int]) -> int:
        shape = (*self.shapes[inputs[0]][:3], sum(self.shapes[i][3] for i in inputs))
        return self.operator("concatenation", inputs, self.tensor(shape), {0: word(3)})

    def finish(self, output: int) -> bytes:
        graph = {
            0: self.tensors,
            1: np.array([self.input], "<i4"),
            2: np.array([output], "<i4"),
            3: self.operators,
        }
        codes = [{0: byte(CODES[name])} for name in self.names]
        return write_file({0: word(3), 1: codes, 2: [graph], 4: self.buffers})


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Any, Any]:
    weight = conv.weight.detach()
    if norm is None:
        return weight.numpy(), conv.bias.detach().numpy()
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return (weight * scale.view(-1, 1, 1, 1)).numpy(), (
        norm.bias.detach() - norm.running_mean * scale
    ).numpy()


def chain(writer: Writer, module: nn.Module, x: int) -> list[int]:
    """Write the convolutions of a module one behind the other; returns the tensors behind each."""
    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6))]
    outputs, i = [], 0
    while i < len(layers):
        norm = layers[i + 1] if i + 1 < len(layers) and isinstance(layers[i + 1], nn.BatchNorm2d) else None
        after = i + 1 + (norm is not None)
        activation = None
        if after < len(layers) and isinstance(layers[after], (nn.ReLU, nn.ReLU6)):
            activation, after = ("relu6" if isinstance(layers[after], nn.ReLU6) else "relu"), after + 1
        x = writer.conv(x, layers[i], norm, activation)
        outputs.append(x)
        i = after
    return outputs


def write_backbone(writer: Writer, backbone: Any, shortcuts: bool = True) -> tuple[int, list[list[int]]]:
    """The features' tensor, and the tensors inside each block."""
    x, blocks = writer.input, []
    for block in backbone.features:
        inside = chain(writer, block, x)
        if getattr(block, "shortcut", False) and shortcuts:
            inside.append(writer.add(inside[-1], x))
        x = inside[-1]
        blocks.append(inside)
    return x, blocks


def write_deeplab(writer: Writer, model: Any, image_first: bool = True, low_first: bool = False) -> bytes:
    """A whole v3 or v3+. image_first: image pooling is the first of the ASPP's branches, as in the published files."""
    x, blocks = write_backbone(writer, model.backbone)
    pyramid = model.context if hasattr(model, "context") else model.aspp
    *branches, pooling = pyramid.branches
    joined = [chain(writer, branch, x)[-1] for branch in branches]
    joined.append(writer.resize(chain(writer, pooling, writer.pool(x))[-1], writer.shapes[x][1:3]))
    x = join(writer, joined, pyramid.project, image_first)
    if hasattr(model, "aspp_conv"):
        x = (chain(writer, model.aspp_conv, x) or [x])[-1]
    if hasattr(model, "extra_conv"):
        x = (chain(writer, model.extra_conv, x) or [x])[-1]
    if hasattr(model, "decoder"):
        side, wide = -(-writer.shapes[writer.input][1] // 4), model.decoder.reduce[0].in_channels
        inside = [tensors for tensors in blocks if writer.shapes[tensors[-1]][1] == side][-1]
        low = next(tensor for tensor in inside[::-1] if writer.shapes[tensor][3] == wide)
        low = chain(writer, model.decoder.reduce, low)[-1]
        x = join(writer, [writer.resize(x, writer.shapes[low][1:3]), low], model.decoder.refine, low_first)
    x = chain(writer, model.classifier, x)[-1]
    x = writer.resize(x, writer.shapes[writer.input][1:3])
    output = writer.operator("arg_max", [x, writer.integers(3)], writer.tensor(writer.shapes[x][:3], INT32))
    return writer.finish(output)


def join(writer: Writer, inputs: list[int], module: nn.Module, backwards: bool) -> int:
    """A concatenation, in this order or backwards, and the convolutions that read it."""
    if not backwards:
        return chain(writer, module, writer.concatenate(inputs))[-1]
    channels = torch.arange(sum(writer.shapes[i][3] for i in inputs)).split(
        [writer.shapes[i][3] for i in inputs]
    )
    order, module = torch.cat(channels[::-1]), deepcopy(module)
    first, *others = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    if first.groups == 1:
        first.weight.data = first.weight.data[:, order]
    else:  # depthwise: the channels stay apart until the next 1x1
        own = [first]
        for layer in others:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.data[:, order]
                break
            own.append(layer)
        for layer in own:
            for name, value in layer.state_dict(keep_vars=True).items():
                if name != "num_batches_tracked":
                    value.data = value.data[order]
    return chain(writer, module, writer.concatenate(inputs[::-1]))[-1]
