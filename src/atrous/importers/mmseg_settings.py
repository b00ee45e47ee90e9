"""The settings in mmsegmentation's checkpoints: a text of dict(...) calls and literals, parsed and never run."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from atrous.backbones.base import DilateFrom, block_rates
from atrous.backbones.mobilenet_v2 import BLOCKS
from atrous.backbones.resnet import STRIDES
from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers.convert import EPS
from atrous.importers.files import Content
from atrous.layers import Dilated, dilate

Settings = Mapping[str, Any]
TEXTS = ("cfg", "config")  # in "meta": of mmengine, and before it
# what a file without settings is built as, by its output stride: the project's D8, D16-MG124, and the plain network
RESNETS: dict[int, Settings] = {
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True},
    16: {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "contract_dilation": True, "multi_grid": (1, 2, 4)},
    32: {},
}  # fmt: skip
# settings that have one known value; left out, they have it
RESNET = {
    "num_stages": 4,
    "out_indices": (0, 1, 2, 3),
    "conv_cfg": None,
    "avg_down": False,
    "dcn": None,
    "plugins": None,
}
MOBILENET = {"widen_factor": 1, "out_indices": (1, 2, 4, 6), "conv_cfg": None, "act_cfg": {"type": "ReLU6"}}
HEAD_SETTINGS = {"input_transform": None, "conv_cfg": None, "act_cfg": {"type": "ReLU"}}
NORMS = ("BN", "BN2d", "SyncBN", "MMSyncBN")
# of the forms of dilation that give the same rates, the first is taken
ORDER: tuple[DilateFrom, ...] = ("second", "first", "next")
ORDER_WITH_GRID: tuple[DilateFrom, ...] = ("next", "second", "first")
RGB = 3  # channels


def read_settings(content: Content) -> dict[str, Any]:
    """What the text assigns, by its names; {} without one. Lists come as tuples, what is no literal as its text.

    Raises InputError where the text is not Python's.
    """
    meta = content.extras.get("meta")
    texts = [meta[key] for key in TEXTS if key in meta] if isinstance(meta, Mapping) else []
    found: dict[str, Any] = {}
    try:
        lines = ast.parse(texts[0]).body if texts and isinstance(texts[0], str) else []
        for line in lines:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                found[line.targets[0].id] = _value(line.value, found)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise content.error(f"the settings in its meta are not readable ({reason[:200]})") from None
    return found


def _value(node: ast.expr, found: Settings) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return {str(word.arg): _value(word.value, found) for word in node.keywords}
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {str(_value(key, found)): _value(value, found) for key, value in pairs if key is not None}
        case ast.List() | ast.Tuple():
            return tuple(_value(item, found) for item in node.elts)
        case ast.Name() if node.id in found:
            return found[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def part(settings: Settings, *names: str) -> Settings:
    """The settings under `names`, one inside the other; {} where there are none."""
    for name in names:
        inner = settings.get(name)
        settings = inner if isinstance(inner, Mapping) else {}
    return settings


def check(content: Content, said: Settings, known: Settings) -> None:
    """InputError for a setting that is not as it is in all networks that can be built here."""
    for name, wanted in known.items():
        if said.get(name, wanted) != wanted:
            raise content.error(
                f"its {name} is {reprlib.repr(said[name])}; {wanted!r} alone can be built here"
            )


def numbers(content: Content, said: Settings, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """A setting of whole numbers from 1 up."""
    found = said.get(name, default)
    if not isinstance(found, tuple) or not all(type(n) is int and 0 < n < 4097 for n in found):
        raise content.error(f"its {name} is {reprlib.repr(found)}, not whole numbers")
    return found


def epsilon(content: Content, said: Settings) -> float:
    """That of the batch norms of a part."""
    norm = part(said, "norm_cfg")
    kind, eps = norm.get("type", "BN"), norm.get("eps", EPS)
    if kind not in NORMS:
        raise content.error(f"its norm_cfg is {reprlib.repr(kind)}; batch norm alone can be built here")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise content.error(f"the eps of its norm_cfg is {reprlib.repr(eps)}, not between 0 and 1")
    return eps


def normalization(content: Content, settings: Settings, channels: int) -> tuple[Normalization, bool]:
    """What is done to pictures, and whether their channels come as BGR, as its reader has them.

    Of other than three channels no order is turned there, and a mean of three is another preprocessor's.
    """
    new = part(settings, "model", "data_preprocessor") or part(settings, "data_preprocessor")
    said = new or part(settings, "img_norm_cfg")
    if not said:
        return Normalization(), False
    turned = new.get("bgr_to_rgb") is True or new.get("rgb_to_bgr") is True  # the same there
    bgr = channels == RGB and not (turned if new else said.get("to_rgb", True))
    if said.get("mean") is None:
        return Normalization((0,) * channels, (1 / 255,) * channels), bgr
    mean, std = (
        tuple(value / 255 for value in _channels(content, said, name, channels)[:: -1 if bgr else 1])
        for name in ("mean", "std")
    )
    if not len(mean) == len(std) == channels:
        return Normalization(), bgr
    if min(std) <= 0:
        raise content.error(f"its std is {reprlib.repr(said['std'])}, not above 0")
    return Normalization(mean, std), bgr


def _channels(content: Content, said: Settings, name: str, channels: int) -> tuple[float, ...]:
    match said.get(name):
        case tuple() as found if len(found) in (RGB, channels) and all(
            type(n) in (int, float) for n in found
        ):
            return found
    raise content.error(f"its {name} is {reprlib.repr(said.get(name))}, not {channels} numbers")


def resnet_rates(content: Content, said: Settings, units: Sequence[int]) -> tuple[int, dict[str, Any]]:
    """(output stride, options) of a ResNet with so many `units` in its blocks.

    There each block has a rate, which its first unit halves with contract_dilation, and multi_grid stands in place of
    the last one's. Here they follow from the output stride, and multi_grid is times them.
    """
    check(content, said, RESNET)
    strides = numbers(content, said, "strides", (1, 2, 2, 2))
    rates = numbers(content, said, "dilations", (1, 1, 1, 1))
    contract, style = said.get("contract_dilation", False) is True, said.get("style", "pytorch")
    grid = numbers(content, said, "multi_grid", ()) if said.get("multi_grid") else ()
    stride, plan = _plan(content, STRIDES, strides)
    theirs = [
        [rate // 2 if contract and rate > 1 else rate] + [rate] * (count - 1)
        for rate, count in zip(rates, units, strict=False)
    ]
    if grid:
        theirs[-1] = list(grid)
    for dilate_from in ORDER_WITH_GRID if grid else ORDER:
        ours = [block_rates(layer, count, dilate_from) for layer, count in zip(plan, units, strict=True)]
        if style == "caffe":  # the stride is on the first 1x1, and all 3x3 are behind it
            ours = [block[-1:] * len(block) for block in ours]
        times = tuple(rate // own for rate, own in zip(grid, ours[-1], strict=False)) if grid else (1,)
        ours[-1] = [own * times[i % len(times)] for i, own in enumerate(ours[-1])]
        if ours == theirs:
            options = {"dilate_from": dilate_from, "multi_grid": times}
            return stride, options | ({"stride_on_first_1x1": True} if style == "caffe" else {})
    raise content.error(
        f"its strides {strides}, dilations {rates}, multi_grid {grid or None}, contract_dilation {contract} and style "
        f"{reprlib.repr(style)} together cannot be built here"
    )


def mobilenet_stride(content: Content, said: Settings) -> int:
    """The output stride of a MobileNetV2, whose first block of a row alone has the row's rate."""
    check(content, said, MOBILENET)
    own = tuple(s for *_, s in BLOCKS)
    strides = numbers(content, said, "strides", own)
    rates = numbers(content, said, "dilations", (1,) * len(own))
    stride, plan = _plan(content, (2, *own), strides)
    if rates != tuple(layer.dilation for layer in plan):
        raise content.error(f"its strides {strides} and dilations {rates} together cannot be built here")
    return stride


def _plan(content: Content, own: Sequence[int], strides: Sequence[int]) -> tuple[int, list[Dilated]]:
    """(output stride, how the last of a network's layers run), where they keep `strides` of their `own`."""
    stride = prod(own[: -len(strides)]) * prod(strides)
    try:
        plan = dilate(own, stride)[-len(strides) :]
    except InputError:
        plan = []
    if [layer.stride for layer in plan] != list(strides):
        raise content.error(f"its strides are {strides}, which cannot be built here")
    return stride, plan
