"""The pieces that every model is made of, and the one rule that turns strides into atrous rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.errors import InputError


class Dilated(NamedTuple):
    """How one layer (or stage) runs once the output stride is capped.

    `stride` is what remains of its stride. `first_dilation` belongs to the convolution that had the
    stride: its input is still on the old grid, so it keeps the old rate. `dilation` belongs to all
    that follow.
    """

    stride: int
    first_dilation: int
    dilation: int


def dilate(strides: Sequence[int], output_stride: int) -> list[Dilated]:
    """Strides beyond `output_stride` become 1 and multiply the rate of what follows (DeepLab v1 sec. 3.1).

    >>> dilate([4, 1, 2, 2, 2], output_stride=8)[-1]
    Dilated(stride=1, first_dilation=2, dilation=4)

    Raises InputError where the strides do not pass through `output_stride` exactly.
    """
    plan, stride_so_far, rate = [], 1, 1
    for stride in strides:
        if stride_so_far * stride > output_stride:
            plan.append(Dilated(1, rate, rate * stride))
            rate *= stride
        else:
            plan.append(Dilated(stride, rate, rate))
            stride_so_far *= stride
    if stride_so_far != output_stride:
        reachable = sorted({_product(strides[:i]) for i in range(1, len(strides) + 1)})
        raise InputError(f"output_stride={output_stride} cannot be had here: choose one of {reachable}")
    return plan


def scale_rates(rates: Sequence[int], designed_at: int, output_stride: int) -> tuple[int, ...]:
    """Rates of a head that was designed at one output stride, at another: the same distance in the image.

    >>> scale_rates((6, 12, 18), designed_at=16, output_stride=8)  # "doubled", DeepLab v3 sec. 3.3
    (12, 24, 36)
    """
    return tuple(max(1, rate * designed_at // output_stride) for rate in rates)


def _product(numbers: Sequence[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


class Add(nn.Module):
    """The sum at the end of a shortcut, as a module so that a quantised network can round it (`fake_quantize`)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains on a single value per channel (batch 1 after image pooling).

    The variance of one value says nothing, so the running statistics are used for that step.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def in_float32(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """What a convolution says of x, in the type of x but computed, forwards and backwards, in float32 at least."""
    kind = torch.promote_types(conv.weight.dtype, torch.float32)
    bias = None if conv.bias is None else conv.bias.to(kind)
    with torch.autocast(x.device.type, enabled=False):
        return conv._conv_forward(x.to(kind), conv.weight.to(kind), bias).to(x.dtype)


def recast(kind: type[nn.Conv2d], conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution as one of another class, with the same weights and what is hooked to its output."""
    with torch.device("meta"):  # where its own take no memory
        new = kind(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
        )
    new.weight, new.bias = conv.weight, conv.bias
    new._forward_hooks.update(conv._forward_hooks)
    return new.train(conv.training)


def infers_on_cpu(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `conv` has numbers to compute on a CPU and no gradients: what code outside torch can do."""
    gradients = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    return x.device.type == "cpu" and not gradients and not torch.compiler.is_compiling()


Padding = Literal["symmetric", "same"]


class SameConv2d(nn.Conv2d):
    """TensorFlow's padding "SAME": (N, C, H, W) to ceil(H / stride), an odd zero goes below and to the right.

    It differs from symmetric padding only where a stride meets an even size.
    """

    def forward(self, x: Tensor) -> Tensor:
        pad: list[int] = []
        for axis in (1, 0):  # F.pad begins with the last
            stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
            zeros = max(0, reach + 1 - stride + -x.shape[2 + axis] % stride)
            pad += [zeros // 2, zeros - zeros // 2]
        return F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SameMaxPool2d(nn.Module):
    """The max pool with TensorFlow's padding "SAME": (N, C, H, W) to ceil(H / stride)."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        pad: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            total = max(0, self.kernel_size - self.stride + -side % self.stride)
            pad += [total // 2, total - total // 2]
        return F.max_pool2d(F.pad(x, pad, value=-torch.inf), self.kernel_size, self.stride)


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, padded to ceil(H / stride) for odd kernels, batch norm, activation.

    padding: "symmetric", or TensorFlow's "same" (see `SameConv2d`).
    """
    conv = SameConv2d if padding == "same" and stride > 1 else nn.Conv2d
    zeros = dilation * (kernel_size - 1) // 2
    layers: list[nn.Module] = [
        conv(in_channels, out_channels, kernel_size, stride, zeros, dilation, groups, bias=False),
        BatchNorm2d(out_channels),
    ]
    if act is not None:
        layers.append(act(inplace=True))
    return nn.Sequential(*layers)


def separable_conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    bn_between: bool = True,
    act_between: bool = True,
) -> nn.Sequential:
    """Atrous separable convolution: depthwise -> BN -> ReLU -> 1x1 -> BN -> ReLU (DeepLab v3+ sec. 3.1, 3.2).

    bn_between: without it, the first BN and ReLU are left out (segmentation_models, VainF). act_between: without it,
    the first ReLU (PaddleSeg).
    """
    if not bn_between:
        zeros = dilation * (kernel_size - 1) // 2
        conv = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, zeros, dilation, in_channels, bias=False
        )
        return nn.Sequential(conv, *conv_bn_act(in_channels, out_channels, 1))
    act = nn.ReLU if act_between else None
    depthwise = conv_bn_act(
        in_channels, in_channels, kernel_size, stride=stride, dilation=dilation, groups=in_channels, act=act
    )
    return nn.Sequential(*depthwise, *conv_bn_act(in_channels, out_channels, 1))


AlignCorners = bool | Literal["asymmetric"]


def resize(x: Tensor, size: Sequence[int] | torch.Size, align_corners: AlignCorners = False) -> Tensor:
    """Bilinear resize of (N, C, h, w) to (N, C, *size); a map that has the size already passes untouched.

    align_corners: True and False as in torch; "asymmetric" is TensorFlow 1's False: row i comes from i * h / H.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if align_corners == "asymmetric":  # corners aligned on grids that are one longer, the last value repeated
        height, width = size
        longer = F.pad(x, (0, 1, 0, 1), mode="replicate")
        grown = F.interpolate(longer, (height + 1, width + 1), mode="bilinear", align_corners=True)
        return grown[..., :height, :width]
    grown = F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)
    if grown.requires_grad and x.device.type == "cpu" and layout(x) is torch.channels_last:
        grown.register_hook(_channels_last)
    return grown


def layout(x: Tensor) -> torch.memory_format:
    """channels_last where (N, C, H, W) lies so in memory."""
    return (
        torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )


def zero_map(like: Tensor, size: Sequence[int]) -> Tensor:
    """Zeros (N, C, *size) that lie in memory as (N, C, H, W) does: sums of what lies differently are slow."""
    last = torch.channels_last if like.stride(1) == 1 else torch.contiguous_format
    shape = *like.shape[:2], *size
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=last).zero_()


def _channels_last(gradient: Tensor) -> Tensor:
    """A part of the channels, as `torch.cat` hands back: the CPU's gradient of a resize is slow for it (6 times)."""
    return gradient.contiguous(memory_format=torch.channels_last)


def map_mean(x: Tensor) -> Tensor:
    """The mean over the map: (N, C, h, w) to (N, C, 1, 1).

    In training with channels last its gradient lies so too, as that of torch's own does not: adding gradients that lie
    differently is 10 times as slow on a CPU.
    """
    if x.requires_grad and layout(x) == torch.channels_last:
        return x.permute(0, 2, 3, 1).mean((1, 2))[:, :, None, None]
    return F.adaptive_avg_pool2d(x, 1)


class MapMean(nn.Module):
    """`map_mean` as a part that can be observed."""

    def forward(self, x: Tensor) -> Tensor:
        return map_mean(x)


def classifier(in_channels: int, num_classes: int, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    """The convolution to the class scores, from N(0, 0.01) as in the authors' code (DeepLab v1 sec. 5)."""
    conv = nn.Conv2d(in_channels, num_classes, kernel, padding=rate * (kernel // 2), dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def region_means(x: Tensor, bins: int) -> Tensor:
    """Means over bins x bins regions that cover the map (PSPNet sec. 3.2): (N, C, h, w) to (N, C, bins, bins).

    `F.adaptive_avg_pool2d`; in a graph whose h and w are open, where ONNX has no such layer, as two matrix products.
    """
    if bins == 1:
        return map_mean(x)
    if not torch.compiler.is_compiling():
        return F.adaptive_avg_pool2d(x, bins)
    rows, columns = (_averaging(side, bins, x) for side in x.shape[-2:])
    return rows @ x @ columns.T


def _averaging(length: int, bins: int, like: Tensor) -> Tensor:
    """The matrix (bins, length) that averages over length * i // bins up to, rounded up, length * (i + 1) / bins."""
    index, points = torch.arange(bins, device=like.device), torch.arange(length, device=like.device)
    first, last = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (points >= first[:, None]) & (points < last[:, None])
    return inside.to(like.dtype) / (last - first)[:, None].to(like.dtype)


SCALES = (0.5, 0.75, 1.0)  # DeepLab v2 sec. 4.1.2


def max_over_scales(
    scores_at: Callable[[Tensor], dict[str, Tensor]],
    x: Tensor,
    scales: Sequence[float],
    *,
    training: bool = False,
    align_corners: AlignCorners = False,
) -> dict[str, Tensor]:
    """The element-wise maximum of "out" over scales of the picture (DeepLab v2 sec. 3.2), on the last one's grid.

    scores_at: pictures (N, c, H, W) to scores, on any grid. With more than one scale and `training` also
    "scale_0.5", ..., each on its own grid; what else the largest picture's scores hold is kept.
    """
    pyramid = [scores_at(_zoom(x, scale, align_corners)) for scale in scales]
    scores = pyramid[-1]
    out = scores["out"]
    for smaller in pyramid[:-1]:
        out = torch.maximum(out, resize(smaller["out"], scores["out"].shape[-2:], align_corners))
    if training and len(scales) > 1:
        scores = scores | {f"scale_{scale:g}": y["out"] for scale, y in zip(scales, pyramid, strict=True)}
    return scores | {"out": out}


def _zoom(x: Tensor, scale: float, align_corners: AlignCorners) -> Tensor:
    """The picture at a scale; the points are exactly 1/scale pixels apart, whatever the size."""
    if scale == 1 or min(x.shape[-2:]) * scale < 1:
        return x
    if align_corners is True:  # the first and the last point stay (Caffe)
        size = [torch.sym_int((side - 1) * scale) + 1 for side in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
    return F.interpolate(x, scale_factor=scale, mode="bilinear")
