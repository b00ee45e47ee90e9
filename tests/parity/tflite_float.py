"""What a TFLite graph computes, operator by operator, with its rounding or without: no model of ours is asked.

Tensors are (N, H, W, C) in float64, constants de-quantised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.importers.tflite import Graph, Operator


def logits(graph: Graph, picture: Tensor, rounded: bool = False) -> Tensor:
    """The scores (N, C, H, W) that the last arg_max reads, for a picture (N, 3, H, W)."""
    return before(graph, picture, "arg_max", rounded)


def before(graph: Graph, picture: Tensor, name: str, rounded: bool = False) -> Tensor:
    """What the first operator of a name reads, (N, C, H, W). rounded: every tensor of bytes holds whole steps."""
    values: dict[int, Tensor] = {graph.inputs[0]: picture.double().permute(0, 2, 3, 1)}
    for operator in graph.operators:
        if operator.name == name:
            return values[operator.inputs[0]].permute(0, 3, 1, 2)
        values[operator.outputs[0]] = _run(graph, operator, values)
        tensor = graph.tensors[operator.outputs[0]]
        if rounded and tensor.dtype in ("u1", "i1"):
            scale, zero = float(tensor.scale[0]), int(tensor.zero_point[0])
            limits = np.iinfo(tensor.dtype)
            steps = (values[operator.outputs[0]] / scale + zero).round().clamp(limits.min, limits.max)
            values[operator.outputs[0]] = (steps - zero) * scale
    raise AssertionError(f"no {name}")


def _run(graph: Graph, operator: Operator, values: dict[int, Tensor]) -> Tensor:
    def get(position: int) -> Tensor:
        index = operator.inputs[position]
        if index not in values:
            values[index] = torch.from_numpy(graph.constant(index).astype(np.float64))
        return values[index]

    options = operator.options
    x = get(0)
    if operator.name in ("quantize", "dequantize"):
        return x
    if operator.name in ("relu", "relu6"):
        return _activate(x, operator.name)
    if operator.name == "add":
        return _activate(x + get(1), options["activation"])
    if operator.name == "concatenation":
        return torch.cat([get(i) for i in range(len(operator.inputs))], options["axis"])
    if operator.name == "average_pool_2d":
        assert options["filter"] == x.shape[1:3]
        return x.mean((1, 2), keepdim=True)
    if operator.name == "mean":
        return x.mean(tuple(get(1).int().tolist()), keepdim=True)
    if operator.name == "tile":
        return x.repeat(get(1).int().tolist())
    if operator.name == "pad":
        (top, bottom), (left, right) = get(1).int().tolist()[1:3]
        return F.pad(x, (0, 0, left, right, top, bottom))
    if operator.name == "space_to_batch_nd":
        return _space_to_batch(x, get(1).int().tolist(), get(2).int().tolist())
    if operator.name == "batch_to_space_nd":
        return _batch_to_space(x, get(1).int().tolist(), get(2).int().tolist())
    if operator.name == "resize_bilinear":
        for axis, size in zip((1, 2), get(1).int().tolist(), strict=True):
            x = resize(x, axis, size, options["align_corners"], options["half_pixel_centers"])
        return x
    assert operator.name in ("conv_2d", "depthwise_conv_2d"), operator.name
    bias = get(2) if len(operator.inputs) > 2 else None
    return _convolve(operator, x, get(1), bias)


def _convolve(operator: Operator, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    depthwise = operator.name == "depthwise_conv_2d"
    stride, dilation = operator.options["stride"], operator.options["dilation"]
    if operator.options["padding"] == "same":  # ceil(size / stride) outputs; an odd zero goes to the end
        for axis in (1, 2):
            s, reach = stride[axis - 1], dilation[axis - 1] * (weight.shape[axis] - 1) + 1
            outputs = -(-x.shape[axis] // s)
            zeros = max(0, (outputs - 1) * s + reach - x.shape[axis])
            pad = [0, 0, 0, 0, 0, 0]
            pad[2 * (3 - axis) : 2 * (3 - axis) + 2] = [zeros // 2, zeros - zeros // 2]
            x = F.pad(x, pad)
    kernel = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
    groups = x.shape[3] if depthwise else 1
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, stride, 0, dilation, groups)
    return _activate(y.permute(0, 2, 3, 1), operator.options["activation"])


def _activate(x: Tensor, name: str | None) -> Tensor:
    assert name in (None, "relu", "relu6"), name
    return x if name is None else x.clamp(0, 6 if name == "relu6" else None)


def resize(x: Tensor, axis: int, size: int, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """Along one axis, by hand: between which two values a new one lies, and where."""
    old = x.shape[axis]
    at = torch.arange(size, dtype=torch.float64)
    if align_corners and size > 1:
        at = at * (old - 1) / (size - 1)
    elif half_pixel_centers:
        at = ((at + 0.5) * old / size - 0.5).clamp(min=0)
    else:
        at = at * old / size
    low = at.floor().long().clamp(max=old - 1)
    high = (low + 1).clamp(max=old - 1)
    share = (at - low).view([-1 if i == axis else 1 for i in range(4)])
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share


def _space_to_batch(x: Tensor, block: Sequence[int], pads: Sequence[Sequence[int]]) -> Tensor:
    x = F.pad(x, (0, 0, *pads[1], *pads[0]))
    return torch.cat([x[:, i :: block[0], j :: block[1]] for i in range(block[0]) for j in range(block[1])])


def _batch_to_space(x: Tensor, block: Sequence[int], crops: Sequence[Sequence[int]]) -> Tensor:
    count, h, w = len(x) // (block[0] * block[1]), x.shape[1] * block[0], x.shape[2] * block[1]
    out = x.new_zeros(count, h, w, x.shape[3])
    for k, part in enumerate(x.split(count)):
        out[:, k // block[1] :: block[0], k % block[1] :: block[1]] = part
    (top, bottom), (left, right) = crops
    return out[:, top : h - bottom, left : w - right]
