"""A TFLite graph as the layers of a network: what quantisation, rewriting and rounding put around them is gone.

quantize, dequantize, cast, softmax, arg_max     the tensor before them
relu, relu6 behind a convolution                 its activation; also where only the output's range says so
space_to_batch .. batch_to_space                 the dilation of the convolution between them
pad before an unpadded convolution               its padding
average_pool over everything, mean over H and W  "pool"
resize_bilinear, tile                            "resize"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from atrous.errors import InputError
from atrous.importers.tflite import Graph, Operator
from atrous.layers import AlignCorners

SEEN_THROUGH = ("quantize", "dequantize", "cast", "softmax", "arg_max")
CONVOLUTIONS = ("conv_2d", "depthwise_conv_2d")
ACTIVATIONS = ("relu", "relu6")
Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """One layer. kind: "conv_2d", "depthwise_conv_2d", "add", "concatenation", "resize", "pool", or an operator's name.

    inputs: tensors that are no constants. padding: "same", "symmetric", or None where there is none (or another). mode:
    how a resize takes its corners; None where that makes no difference.
    """

    kind: str
    operator: Operator
    inputs: tuple[int, ...]
    output: int
    activation: Any = None
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str | None = None
    mode: AlignCorners | None = None


class Layers:
    """The layers of a graph: `made_by[tensor]`, `used_by[tensor]`, and the tensors `input` and `output`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._same: dict[int, int] = {}  # a tensor -> the one that it stands for
        self._around: dict[int, Operator] = {}  # a tensor -> the pad or space_to_batch that made it
        self.made_by: dict[int, Layer] = {}
        if not graph.inputs or not graph.outputs or min(*graph.inputs, *graph.outputs) < 0:
            raise graph.error("it has no input or no output")
        for operator in graph.operators:
            self._add(operator)
        self.used_by: dict[int, list[Layer]] = {}
        for layer in self.made_by.values():
            for tensor in layer.inputs:
                self.used_by.setdefault(tensor, []).append(layer)
        self.input, self.output = self._resolve(graph.inputs[0]), self._resolve(graph.outputs[0])

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.made_by.values())

    def shape(self, tensor: int) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return self.graph.tensors[tensor].shape

    def error(self, reason: str) -> InputError:
        return self.graph.error(reason)

    def _resolve(self, tensor: int) -> int:
        return self._same.get(tensor, tensor)

    def _add(self, operator: Operator) -> None:
        if not operator.inputs or not operator.outputs or min(operator.inputs[0], operator.outputs[0]) < 0:
            raise self.error(f"a {operator.name} without input or output")
        name, output = operator.name, operator.outputs[0]
        first = self._resolve(operator.inputs[0])
        if output in self.made_by or output in self._same or output in self._around:
            raise self.error(f"tensor {output} is made twice")
        made_by = self.made_by.get(first)
        if name in SEEN_THROUGH:
            self._same[output] = first
        elif name in ACTIVATIONS and made_by is not None and made_by.activation in (None, name):
            self.made_by[first] = replace(made_by, activation=name)
            self._same[output] = first
        elif name in ("pad", "space_to_batch_nd"):
            self._around[output] = operator
        elif name == "batch_to_space_nd":
            self._leave_batches(operator, made_by)
        else:
            self.made_by[output] = self._layer(operator)

    def _layer(self, operator: Operator) -> Layer:
        constant = self.graph.tensors
        inputs = tuple(
            self._resolve(i) for i in operator.inputs if i >= 0 and not len(constant[self._resolve(i)].data)
        )
        layer = Layer(
            operator.name,
            replace(operator, inputs=tuple(self._resolve(i) for i in operator.inputs)),
            inputs,
            operator.outputs[0],
            operator.options.get("activation"),
        )
        if not inputs:
            raise self.error(f"a {operator.name} of constants")
        if operator.name in CONVOLUTIONS:
            return self._convolution(layer)
        if operator.name in ("average_pool_2d", "mean"):
            return replace(layer, kind="pool") if self._is_global(operator) else layer
        if operator.name in ("resize_bilinear", "tile"):
            return replace(layer, kind="resize", mode=self._mode(operator))
        return layer

    def _convolution(self, layer: Layer) -> Layer:
        options = layer.operator.options
        if not {"stride", "dilation", "padding"} <= options.keys():
            raise self.error(f"a {layer.kind} without options")
        stride, dilation, padding = options["stride"], options["dilation"], options["padding"]
        kernel = self.shape(layer.operator.inputs[1] if len(layer.operator.inputs) > 1 else -1)[1:3]
        before = self._around.get(layer.inputs[0])
        if before is not None:
            layer = replace(layer, inputs=(self._resolve(before.inputs[0]), *layer.inputs[1:]))
        if before is not None and before.name == "space_to_batch_nd":
            block = self._constant_pair(before, 1)
            if padding != "valid" or stride != (1, 1) or dilation != (1, 1):
                raise self.error("a space_to_batch around a convolution that has padding, stride or dilation")
            dilation, padding = block, "same"
        elif before is not None and padding == "valid":
            padding = self._explicit_padding(before, layer.inputs[0], kernel, stride, dilation)
        elif before is not None or (padding == "valid" and tuple(kernel) != (1, 1)):
            padding = None
        elif padding == "valid":
            padding = "same"  # of 1x1
        activation = layer.activation or self._activation_of_range(layer.output)
        return replace(layer, stride=stride, dilation=dilation, padding=padding, activation=activation)

    def _leave_batches(self, operator: Operator, convolution: Layer | None) -> None:
        inside = convolution is not None and convolution.operator.inputs[0] in self._around
        if convolution is None or not inside:
            raise self.error("a batch_to_space without a convolution before it")
        before = self._around[convolution.operator.inputs[0]]
        whole = self.shape(operator.outputs[0])[1:3] == self.shape(before.inputs[0])[1:3]
        if not whole or self._constant_pair(operator, 1) != convolution.dilation:
            raise self.error("a batch_to_space that does not undo the space_to_batch before it")
        self.made_by[operator.outputs[0]] = replace(convolution, output=operator.outputs[0])
        del self.made_by[convolution.output]

    def _explicit_padding(
        self, pad: Operator, source: int, kernel: tuple[int, ...], stride: Pair, dilation: Pair
    ) -> str | None:
        """Which rule a `pad` before a convolution follows: "same", "symmetric", or None."""
        found = self._integers(pad, 1)
        shape = self.shape(source)
        if len(found) != 8 or len(shape) != 4 or len(kernel) != 2 or min(stride) < 1:
            return None
        same, symmetric = [], []
        for side, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True):
            reach = d * (k - 1)
            zeros = max(0, reach + 1 - s + -side % s)
            same += [zeros // 2, zeros - zeros // 2]
            symmetric += [reach // 2, reach // 2]
        rules = {"same": same, "symmetric": symmetric}
        return next((rule for rule, zeros in rules.items() if found == [0, 0, *zeros, 0, 0]), None)

    def _activation_of_range(self, tensor: int) -> str | None:
        """The activation that quantisation makes of a range such as 0 .. 6."""
        info = self.graph.tensors[tensor]
        if info.dtype not in ("u1", "i1") or len(info.scale) != 1 or len(info.zero_point) != 1:
            return None
        if info.zero_point[0] != np.iinfo(info.dtype).min:
            return None
        return "relu6" if abs(255 * float(info.scale[0]) - 6) < 0.01 else "relu"

    def _is_global(self, operator: Operator) -> bool:
        shape = self.shape(operator.inputs[0])
        if len(shape) != 4:
            return False
        if operator.name == "mean":
            return sorted(axis % 4 for axis in self._integers(operator, 1)) == [1, 2]
        window = operator.options.get("filter"), operator.options.get("padding")
        return shape[1:3] == window[0] and (window[1] == "valid" or shape[1:3] == (1, 1))

    def _mode(self, operator: Operator) -> AlignCorners | None:
        before, after = self.shape(operator.inputs[0]), self.shape(operator.outputs[0])
        if len(before) != 4 or len(after) != 4:
            raise self.error(f"a {operator.name} of {len(before)} dimensions")
        if before[1:3] in ((1, 1), after[1:3]):
            return None
        if operator.name == "tile":
            raise self.error("a tile of more than one value")
        if operator.options.get("align_corners"):
            return True
        return False if operator.options.get("half_pixel_centers") else "asymmetric"

    def _constant_pair(self, operator: Operator, index: int) -> Pair:
        found = self._integers(operator, index)
        if len(found) != 2 or min(found) < 1:
            raise self.error(f"a {operator.name} with {found}")
        return found[0], found[1]

    def _integers(self, operator: Operator, index: int) -> list[int]:
        if len(operator.inputs) <= index:
            raise self.error(f"a {operator.name} with {len(operator.inputs)} inputs")
        return [int(value) for value in self.graph.constant(operator.inputs[index]).flatten().tolist()]
