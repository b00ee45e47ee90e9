"""What a model is made of: grids, parameters, multiply-adds, atrous rates, receptive field.

The model runs once on tensors that have shapes and no data (torch's meta device), and every operation is
looked at.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atrous.backbones.base import picture_channels
from atrous.models import Model
from atrous.models.deeplab_v3 import ASPP, Cascade
from atrous.models.deeplab_v3plus import Decoder
from atrous.models.pspnet import PyramidPooling

aten = torch.ops.aten


@dataclass
class Part:
    """One box of the paper's figure, or one stage of the backbone.

    `stride` is the picture's size over this part's, None where the size is fixed (pooled grids).
    `multiply_adds` are those of convolutions and matrix products for one picture. `rates` are the atrous
    rates inside, in the order they first come.
    """

    name: str
    channels: int = 0
    height: int = 0
    width: int = 0
    stride: float | None = None
    parameters: int = 0
    multiply_adds: int = 0
    rates: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What `describe` finds.

    `receptive_field`: height in pixels of the part of the picture that can change one score, along the
    deepest path of convolutions and pools. Pooling over the whole picture (image pooling, pyramid pooling,
    squeeze and excitation) reaches beyond it: `sees_whole_image`.
    """

    name: str
    size: tuple[int, int]
    parts: list[Part]
    output_stride: int
    score_stride: float
    atrous_rates: tuple[int, ...]
    receptive_field: int
    sees_whole_image: bool
    parameters: int
    multiply_adds: int


def describe(model: Model, size: tuple[int, int] = (513, 513)) -> ModelInfo:
    """Run `model` on one picture of `size` (height, width) without data and tell what was seen.

    Counted in evaluation mode: auxiliary heads belong to `parameters`, but nothing runs through them.
    """
    model = _on_meta(model)
    picture = torch.empty(1, picture_channels(model), *size, device="meta")
    parts: dict[str, Part] = {}
    with torch.no_grad(), _Trace(picture) as trace:
        for name, module in _boxes(model):
            _watch(module, name, parts, trace)
        _watch_stages(model.backbone, parts, trace)
        seen = trace.seen(model.scores(picture)["out"])
    config = model.config
    return ModelInfo(
        name=f"{config.name} {config.backbone}",
        size=size,
        parts=list(parts.values()),
        output_stride=model.backbone.output_stride,
        score_stride=seen.distance,
        atrous_rates=tuple(sorted(trace.rates)),
        receptive_field=round(seen.field or 0),
        sees_whole_image=seen.whole,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=trace.multiply_adds,
    )


def table(info: ModelInfo) -> Table:
    """The parts of a model as a table for `rich`, with the sums below."""
    height, width = info.size
    field_ = f"{info.receptive_field} pixels" + (" and the whole picture" if info.sees_whole_image else "")
    rates = " ".join(map(str, info.atrous_rates)) or "none"
    lines = Table(
        title=f"{info.name}, {height}x{width}",
        caption=f"output stride {info.output_stride} | atrous rates {rates} | receptive field {field_}",
        show_footer=True,
    )
    lines.add_column("part", footer="sum")
    for title, footer in (
        ("channels", ""),
        ("size", ""),
        ("stride", f"{info.score_stride:g}"),
        ("rates", ""),
        ("parameters", f"{info.parameters / 1e6:.2f} M"),
        ("multiply-adds", f"{info.multiply_adds / 1e9:.2f} B"),
    ):
        lines.add_column(title, footer=footer, justify="right")
    for part in info.parts:
        lines.add_row(
            part.name,
            str(part.channels),
            f"{part.height}x{part.width}",
            "" if part.stride is None else f"{part.stride:g}",
            " ".join(map(str, part.rates)),
            f"{part.parameters / 1e6:.2f} M",
            f"{part.multiply_adds / 1e9:.2f} B",
        )
    return lines


def _on_meta(model: Model) -> Model:
    """A copy for evaluation whose weights have shapes and no data."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    memo: dict[int, Any] = {
        id(t): nn.Parameter(t.detach().to("meta")) if isinstance(t, nn.Parameter) else t.to("meta")
        for t in tensors
    }
    return copy.deepcopy(model, memo).eval()


def _boxes(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The boxes of the figure: what hangs on the model, taken apart where a paper's module holds several."""
    for name, child in model.named_children():
        if isinstance(child, ASPP | Cascade | Decoder | PyramidPooling | nn.ModuleList):
            yield from _boxes(child, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "backbone" and any(True for _ in child.parameters()):
            yield f"{prefix}{name}", child


class _Counts(NamedTuple):
    """What had been counted at some moment."""

    multiply_adds: int
    parameters: int
    convolutions: int


def _watch(module: nn.Module, name: str, parts: dict[str, Part], trace: _Trace) -> None:
    before: list[_Counts] = []
    module.register_forward_pre_hook(lambda *_: before.append(trace.counts()))
    module.register_forward_hook(
        lambda _module, _args, output: _add(parts.setdefault(name, Part(name)), output, before.pop(), trace)
    )


def _watch_stages(backbone: nn.Module, parts: dict[str, Part], trace: _Trace) -> None:
    """One part for each feature map of the backbone, with all that was counted since the one before."""
    before: list[_Counts] = []

    def after(_module: nn.Module, _args: Any, features: Sequence[Tensor]) -> None:
        start = before.pop()
        for i, feature in enumerate(features, start=1):
            name = f"backbone {i}"
            end = trace.seen(feature).counts
            _add(parts.setdefault(name, Part(name)), feature, start, trace, end)
            start = end

    backbone.register_forward_pre_hook(lambda *_: before.append(trace.counts()))
    backbone.register_forward_hook(after)


def _add(part: Part, output: Tensor, start: _Counts, trace: _Trace, end: _Counts | None = None) -> None:
    end = end or trace.counts()
    seen = trace.seen(output)
    part.channels, part.height, part.width = output.shape[1:]
    part.stride = None if seen.field is None else seen.distance
    part.parameters += end.parameters - start.parameters
    part.multiply_adds += end.multiply_adds - start.multiply_adds
    rates = trace.convolution_rates[start.convolutions : end.convolutions]
    part.rates = tuple(dict.fromkeys([*part.rates, *(rate for rate in rates if rate > 1)]))


@dataclass(frozen=True)
class _Seen:
    """What one value of a feature map has seen of the picture.

    field: height in pixels; None where all of it came through a pool over the whole picture.
    distance: pixels between two neighbours of the map.
    whole: whether a pool over the whole picture is among its sources.
    counts: all that was counted up to the last layer it went through.
    """

    field: float | None
    distance: float
    whole: bool
    counts: _Counts


class _Trace(TorchDispatchMode):
    """Follows every operation: counts, and what each result has seen."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.convolution_rates: list[int] = []
        self._parameters = 0
        self._known: set[int] = set()  # the parameters that are counted
        self._keep: list[Tensor] = []  # ids stay unique while the tensors live
        self._seen: dict[int, _Seen] = {}
        self._last = self.counts()
        self._remember(picture, _Seen(1.0, 1.0, False, self._last))

    def counts(self) -> _Counts:
        return _Counts(self.multiply_adds, self._parameters, len(self.convolution_rates))

    @property
    def rates(self) -> set[int]:
        return {rate for rate in self.convolution_rates if rate > 1}

    def seen(self, x: Tensor) -> _Seen:
        return self._seen[id(x)]

    def _remember(self, x: Tensor, seen: _Seen) -> None:
        self._keep.append(x)
        self._seen[id(x)] = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for x in inputs:
            if isinstance(x, nn.Parameter) and id(x) not in self._known:
                self._known.add(id(x))
                self._parameters += x.numel()
        sources = [self._seen[id(x)] for x in inputs if id(x) in self._seen]
        if sources:
            self._count(func, args, output)
            before, self._last = self._last, self.counts()
            counts = max(source.counts for source in sources) if self._last == before else self._last
            for result in tree_leaves(output):
                if isinstance(result, Tensor):
                    self._remember(result, _after(func, args, result, sources, counts))
        return output

    def _count(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        if func is aten.convolution.default:
            x, weight, transposed = args[0], args[1], args[6]
            grid = x if transposed else output
            self.multiply_adds += grid.shape[0] * grid.shape[-2] * grid.shape[-1] * weight.numel()
            self.convolution_rates.append(max(args[5]))
        elif func in (aten.mm.default, aten.addmm.default, aten.bmm.default):
            self.multiply_adds += output.numel() * args[-1].shape[-2]


def _after(func: Any, args: tuple[Any, ...], result: Tensor, sources: list[_Seen], counts: _Counts) -> _Seen:
    """What the result of an operation has seen, from what its arguments have seen."""
    deepest = max(sources, key=lambda seen: seen.field or 0)
    field, distance, whole = deepest.field, deepest.distance, any(seen.whole for seen in sources)
    if _is_global_pool(func, args):
        return _Seen(None, distance, True, counts)
    if field is None:
        return _Seen(None, distance, whole, counts)

    kernel, stride, rate = 1, 1.0, 1
    if func is aten.convolution.default:
        kernel, rate = args[1].shape[-2], args[5][0]
        stride = 1 / args[3][0] if args[6] else args[3][0]
    elif func is aten.max_pool2d_with_indices.default:
        kernel, stride, rate = args[1][0], _argument(args, 2, args[1])[0], _argument(args, 4, (1, 1))[0]
    elif func is aten.avg_pool2d.default:
        kernel, stride = args[1][0], _argument(args, 2, args[1])[0]
    elif func in (aten.upsample_bilinear2d.default, aten.upsample_bilinear2d.vec):
        kernel, stride = 2, _between_points(args[0].shape[-2], result.shape[-2])
    return _Seen(field + (kernel - 1) * rate * distance, distance * stride, whole, counts)


def _is_global_pool(func: Any, args: tuple[Any, ...]) -> bool:
    """Means over the grid, of all of it or in bins whose size follows the picture's."""
    if func is aten.mean.dim and args[0].ndim == 4:
        return {axis % 4 for axis in args[1]} >= {2, 3}
    return func is aten._adaptive_avg_pool2d.default


def _argument(args: tuple[Any, ...], place: int, default: Any) -> Any:
    """A list argument, which is left out or empty where it is the default."""
    return args[place] if len(args) > place and args[place] else default


def _between_points(before: int, after: int) -> float:
    """Points of the old grid between two neighbours of the new one.

    Grids here are of size ceil(n / stride), so (size - 1) is what stands in the ratio of the strides; where
    n - 1 is no multiple of the stride the ratio is off by less than a tenth, and a whole one is meant.
    """
    if after == 1 or before == 1:
        return before / after
    ratio = (before - 1) / (after - 1)
    nearest = round(ratio) if ratio > 1 else 1 / round(1 / ratio)
    return nearest if abs(ratio / nearest - 1) < 0.1 else ratio
