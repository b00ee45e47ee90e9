"""Which DeepLab a TFLite graph is: backbone, width, atrous rates, decoder and resizes, as its operators say."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn

from atrous.backbones import Backbone, create_backbone
from atrous.backbones.mobilenet_v2 import make_divisible
from atrous.importers.tflite_layers import CONVOLUTIONS, Layer, Layers

WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.3, 1.4)
STEM_CHANNELS = 32  # of both networks, at width 1
LAST_CHANNELS = 320  # of MobileNetV2
OUTPUT_STRIDES = (2, 4, 8, 16, 32)
LARGEST_SIDE = 10_000  # of an input
MOST_IN_BRANCH = 8  # layers
LOW_LEVEL_STRIDE = 4


class Step(NamedTuple):
    """A convolution: its weight's shape (C_out, C_in / groups, kh, kw), stride, dilation, and what follows it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    activation: str | None


class Place(NamedTuple):
    """A convolution of ours: its name and its batch norm's inside the part, what it is, and which module ends it."""

    conv: str
    norm: str | None
    step: Step
    end: str


@dataclass
class Network:
    """A graph in our terms.

    parts: name of a module -> its convolutions, in the module's order. columns: name of a part -> (start, length) of
    the input channels of its first convolution, in our order. others: name of a module without weights -> the tensor
    that it makes. joined: name of a part -> the concatenation that it goes into. num_classes, size: None for a
    classifier, whose head is left out.
    """

    model: str
    backbone: str
    options: dict[str, Any]
    output_stride: int
    parts: dict[str, list[Layer]]
    columns: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)
    num_classes: int | None = None
    size: tuple[int, int] | None = None


@dataclass
class Trunk:
    """The backbone in a graph.

    A shortcut (i, j) goes from convs[i]'s input to convs[j]'s, or to the features; its value is the sum behind it.
    """

    convs: list[Layer]
    features: int
    shortcuts: dict[tuple[int, int], int]

    def tensors(self) -> dict[int, int]:
        """A tensor -> the number of convolutions before it; behind an add, its output alone."""
        return {layer.inputs[0]: i for i, layer in enumerate(self.convs)} | {self.features: len(self.convs)}


def read_network(layers: Layers) -> Network:
    """Recognise a mobile DeepLab, or a classifier on its backbone. Raises InputError for another graph."""
    pools = [layer for layer in layers if layer.kind == "pool"]
    if len(pools) != 1:
        raise layers.error(f"{len(pools)} means over the whole picture, where DeepLab and MobileNets have 1")
    features, pooled = pools[0].inputs[0], pools[0].output
    trunk = read_trunk(layers, features)
    pyramids = [layer for layer in layers if _is_pyramid(layers, layer, features, pooled)]
    classifier = not pyramids and layers.used_by[features] == pools
    if not classifier and len(pyramids) != 1:
        raise layers.error("its head is neither an ASPP nor a classifier's")
    network = fit_backbone(layers, trunk, classifier)
    if not classifier:
        read_head(layers, network, trunk, pyramids[0], pooled)
    return network


def read_trunk(layers: Layers, features: int) -> Trunk:
    """Walk from the features back to the picture."""
    convs: list[Layer] = []
    adds: list[tuple[int, int, int]] = []  # tensor of the shortcut, convolutions behind the add, its output
    tensor = features
    for _ in range(len(layers.made_by) + 1):
        if tensor == layers.input:
            break
        layer = layers.made_by.get(tensor)
        if layer is not None and layer.kind in CONVOLUTIONS:
            convs.append(layer)
            tensor = layer.inputs[0]
        elif layer is not None and layer.kind == "add" and len(layer.inputs) == 2 and not layer.activation:
            tensor, shortcut = _sides(layers, *layer.inputs)
            adds.append((shortcut, len(convs), layer.output))
        else:
            raise layers.error(f"its backbone has a {layer.kind if layer else 'tensor that nothing makes'}")
    else:
        raise layers.error("its backbone goes in a circle")
    trunk = Trunk(convs[::-1], features, {})
    tensors = trunk.tensors()
    for shortcut, behind, added in adds:
        if shortcut not in tensors:
            raise layers.error("its backbone has a shortcut from inside a block")
        trunk.shortcuts[tensors[shortcut], len(convs) - behind] = added
    return trunk


def _sides(layers: Layers, a: int, b: int) -> tuple[int, int]:
    """Of an add's inputs: the one that comes out of a block, and the shortcut, which is the block's input."""
    for branch, shortcut in ((a, b), (b, a)):
        if _walk_back(layers, branch, {shortcut}) is not None:
            return branch, shortcut
    raise layers.error("its backbone has an add that is no shortcut")


def _walk_back(layers: Layers, tensor: int, origins: Container[int]) -> tuple[int, list[Layer]] | None:
    """(the origin that a tensor comes from, the convolutions between); None where there are other things between."""
    convs: list[Layer] = []
    for _ in range(MOST_IN_BRANCH):
        if tensor in origins:
            return tensor, convs[::-1]
        layer = layers.made_by.get(tensor)
        if layer is None or layer.kind not in (*CONVOLUTIONS, "resize"):
            return None
        if layer.kind != "resize":
            convs.append(layer)
        tensor = layer.inputs[0]
    return None


def step(layers: Layers, layer: Layer) -> Step:
    """What a convolution of the graph is."""
    if len(layer.operator.inputs) < 2 or layer.operator.inputs[1] < 0:
        raise layers.error(f"a {layer.kind} has no weights")
    shape = layers.shape(layer.operator.inputs[1])
    if len(shape) != 4 or not layers.graph.is_whole(layer.operator.inputs[1]):
        raise layers.error(f"a {layer.kind} has weights of shape {shape} that are not all there")
    axes = (3, 0, 1, 2) if layer.kind == "depthwise_conv_2d" else (0, 3, 1, 2)
    return Step(tuple(shape[axis] for axis in axes), layer.stride, layer.dilation, layer.activation)


def places(module: nn.Module) -> list[Place]:
    """The convolutions of a module of ours, in the order of their definition."""
    found: list[Place] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            of_layer = Step(tuple(layer.weight.shape), tuple(layer.stride), tuple(layer.dilation), None)
            found.append(Place(name, None, of_layer, name))
        elif isinstance(layer, nn.BatchNorm2d):
            found[-1] = found[-1]._replace(norm=name, end=name)
        elif isinstance(layer, (nn.ReLU, nn.ReLU6)):
            activation = "relu6" if isinstance(layer, nn.ReLU6) else "relu"
            found[-1] = found[-1]._replace(step=found[-1].step._replace(activation=activation), end=name)
    return found


def fit_backbone(layers: Layers, trunk: Trunk, classifier: bool) -> Network:
    """Find the backbone that has these very convolutions and shortcuts; a classifier may have one more."""
    theirs = [step(layers, layer) for layer in trunk.convs]
    output_stride = prod(found.stride[0] for found in theirs)
    if output_stride not in OUTPUT_STRIDES:
        raise layers.error(f"its features have an output stride of {output_stride}")
    complaint = "its backbone is no MobileNetV2 and no MobileNetEdgeTPU"
    for name, options in _candidates(theirs):
        shapes = [place.step.shape for place in places(_blank(name, options))]
        behind = len(theirs) - len(shapes)
        if shapes != [found.shape for found in theirs[: len(shapes)]] or behind not in (0, classifier):
            continue
        for dilate_from in ("second", "first", "next"):
            tried = options | {"padding": _padding(layers, trunk)}
            tried |= {} if dilate_from == "second" else {"dilate_from": dilate_from}
            backbone = _blank(name, tried, output_stride)
            ours = [place.step for place in places(backbone)]
            shortcuts = {place: added for place, added in trunk.shortcuts.items() if place[1] <= len(ours)}
            own = _shortcuts(backbone)
            if ours == theirs[: len(ours)] and shortcuts.keys() == own.keys():
                parts = {"backbone": trunk.convs[: len(ours)]}
                sums = {f"backbone.{own[place]}": added for place, added in shortcuts.items()}
                return Network("deeplab_v3", name, tried, output_stride, parts, others=sums)
            complaint = f"its backbone is a {name} with other strides, rates, activations or shortcuts"
    raise layers.error(complaint)


def _candidates(theirs: list[Step]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Backbones that begin and end like this one."""
    stem, last = (theirs[0].shape[0], theirs[-1].shape[0]) if theirs else (0, 0)
    for width in dict.fromkeys((*WIDTHS, stem / STEM_CHANNELS, last / LAST_CHANNELS)):
        for divisible_by in (8, 1):
            if width <= 0 or make_divisible(STEM_CHANNELS * width, divisible_by) != stem:
                continue
            options: dict[str, Any] = {} if width == 1 else {"width": width}
            if divisible_by == 8:
                yield "mobilenet_edgetpu", options | ({} if last == 1280 else {"last_channels": last})
            options |= {} if divisible_by == 8 else {"divisible_by": divisible_by}
            yield "mobilenet_v2", options
            if last == 1280:
                yield "mobilenet_v2", options | {"last_conv": True}


def _blank(name: str, options: dict[str, Any], output_stride: int = 32) -> Backbone:
    return _build_blank(name, output_stride, tuple(options.items()))


@lru_cache(maxsize=32)
def _build_blank(name: str, output_stride: int, options: tuple[tuple[str, Any], ...]) -> Backbone:
    with torch.device("meta"):  # its names and shapes
        return create_backbone(name, output_stride=output_stride, **dict(options))


def _blocks(backbone: Backbone) -> list[tuple[nn.Module, int, int]]:
    """Each block with the numbers of its first convolution and of the one behind it."""
    found, start = [], 0
    for block in backbone.get_submodule("features").children():
        end = start + len(places(block))
        found.append((block, start, end))
        start = end
    return found


def _shortcuts(backbone: Backbone) -> dict[tuple[int, int], str]:
    """(first convolution of a block, the one behind it) -> the module of the block's sum."""
    return {
        (start, end): f"features.{index}.add"
        for index, (block, start, end) in enumerate(_blocks(backbone))
        if getattr(block, "shortcut", False)
    }


def _padding(layers: Layers, trunk: Trunk) -> str:
    """The padding of the strided convolutions; elsewhere both rules are one."""
    found = {layer.padding for layer in trunk.convs if layer.stride != (1, 1)}
    if len(found) != 1 or None in {layer.padding for layer in trunk.convs}:
        raise layers.error("its backbone has convolutions of several paddings, or without")
    return str(found.pop())


def _is_pyramid(layers: Layers, layer: Layer, features: int, pooled: int) -> bool:
    """Whether a concatenation joins branches from the features and from their mean."""
    if layer.kind != "concatenation":
        return False
    origins = {found[0] if found else None for found in _branches(layers, layer, {features, pooled})}
    return origins == {features, pooled}


def _branches(
    layers: Layers, concatenation: Layer, origins: Container[int]
) -> list[tuple[int, list[Layer]] | None]:
    return [_walk_back(layers, tensor, origins) for tensor in concatenation.inputs]


def read_head(layers: Layers, network: Network, trunk: Trunk, pyramid: Layer, pooled: int) -> None:
    """Add the ASPP, the decoder where there is one, and the classifier to a network."""
    encoder, joined = _walk_on(layers, pyramid.output)
    decoder, end = _walk_on(layers, joined.output) if joined else ([], None)
    inside = decoder[:-1] if joined else encoder[:-1]
    context = encoder if joined else inside
    if not context or not (decoder or not joined) or end is not None:
        raise layers.error("its head is no DeepLab's: an ASPP, one decoder at most, a classifier")
    classifier, (project, *extra) = (decoder or encoder)[-1], context
    network.model = "deeplab_v3plus" if joined else "deeplab_v3"
    network.num_classes = step(layers, classifier).shape[0]
    channels = step(layers, project).shape[0]
    network.options |= {} if channels == 256 else {"channels": channels}
    name, extra_name = ("aspp", "aspp_conv") if joined else ("context", "extra_conv")
    separable = _read_pyramid(layers, network, pyramid, {trunk.features, pooled}, name)
    pooling = max(part for part in network.parts if part.startswith(f"{name}.branches."))
    network.others[f"{pooling}.pool"] = pooled
    network.parts |= {f"{name}.project": [project], "classifier": [classifier]}
    if extra:
        network.parts[extra_name] = extra
        network.options[extra_name] = True
    if joined:
        _read_decoder(layers, network, trunk, joined, pyramid.output, inside)
    if separable != network.options.get("separable", False) and network.options["atrous_rates"]:
        network.options["aspp_separable" if joined else "separable"] = separable

    modes = {layer.mode for layer in layers if layer.kind == "resize"} - {None}
    if len(modes) > 1:
        raise layers.error("its resizes take their corners in different ways")
    network.options["align_corners"] = modes.pop() if modes else True  # as the authors
    height, width = (*layers.shape(layers.input), 0, 0, 0)[1:3]
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise layers.error(f"its input has a size of {height}x{width}")
    network.size = height, width
    known = sum(len(part) for part in network.parts.values())
    if known != sum(layer.kind in CONVOLUTIONS for layer in layers):
        raise layers.error("it has convolutions beside those of a DeepLab")


def _walk_on(layers: Layers, tensor: int) -> tuple[list[Layer], Layer | None]:
    """The convolutions behind a tensor, and the next concatenation or, at the output, None."""
    convs: list[Layer] = []
    for _ in range(len(layers.made_by) + 1):
        if tensor == layers.output:
            return convs, None
        users = layers.used_by.get(tensor, [])
        if len(users) != 1 or users[0].kind not in (*CONVOLUTIONS, "resize", "concatenation"):
            found = ", ".join(user.kind for user in users) or "nothing"
            raise layers.error(f"its head goes on with {found}, DeepLab's with a convolution")
        if users[0].kind == "concatenation":
            return convs, users[0]
        if users[0].kind != "resize":
            convs.append(users[0])
        tensor = users[0].output
    raise layers.error("its head goes in a circle")


def _read_pyramid(layers: Layers, network: Network, pyramid: Layer, origins: set[int], name: str) -> bool:
    """The ASPP's branches in our order: the 1x1, those with rates, image pooling. Returns how they are separable."""
    branches = [found for found in _branches(layers, pyramid, origins) if found and found[1]]
    if len(branches) != len(pyramid.inputs):
        raise layers.error("a branch of its ASPP has no convolution")

    def rank(index: int) -> tuple[bool, bool, tuple[int, int]]:
        origin, convs = branches[index]
        is_wide = step(layers, convs[0]).shape[2:] != (1, 1)
        return layers.shape(origin)[1:3] == (1, 1), is_wide, convs[0].dilation

    order = sorted(range(len(branches)), key=rank)
    for i, index in enumerate(order):
        network.parts[f"{name}.branches.{i}"] = branches[index][1]
        network.joined[f"{name}.branches.{i}"] = pyramid.output
    network.columns[f"{name}.project"] = _columns(layers, pyramid, order)
    atrous = [branches[index][1] for index in order[1:-1]]
    network.options["atrous_rates"] = tuple(convs[0].dilation[0] for convs in atrous)
    return bool(atrous) and len(atrous[0]) == 2


def _read_decoder(
    layers: Layers, network: Network, trunk: Trunk, joined: Layer, pyramid: int, inside: list[Layer]
) -> None:
    """The decoder: low-level features, their 1x1, and the 3x3 convolutions, separable or not."""
    encoded = [_walk_back(layers, tensor, {pyramid}) is not None for tensor in joined.inputs]
    if sorted(encoded) != [False, True]:
        raise layers.error("its decoder does not join the ASPP and low-level features")
    order = [encoded.index(True), encoded.index(False)]
    inner = {layer.output for layer in trunk.convs} | trunk.tensors().keys()
    found = _walk_back(layers, joined.inputs[order[1]], inner)
    if found is None:
        raise layers.error("its decoder's low-level features are not the backbone's")
    network.options |= _low_level_features(layers, network, trunk, found[0])
    network.parts["decoder.reduce"] = found[1]
    network.joined["decoder.reduce"] = joined.output
    size = 2 if any(layer.kind == "depthwise_conv_2d" for layer in inside) else 1
    groups = [inside[i : i + size] for i in range(0, len(inside), size)]
    for i, group in enumerate(groups):
        network.parts[f"decoder.refine.{i}"] = group
    network.columns["decoder.refine.0"] = _columns(layers, joined, order)
    network.options |= {} if len(groups) == 2 else {"decoder_convs": len(groups)}
    network.options |= {} if size == 1 else {"separable": True}


def _low_level_features(layers: Layers, network: Network, trunk: Trunk, tensor: int) -> dict[str, Any]:
    """Which map at stride 4 the decoder reads."""
    own = ("width", "divisible_by", "last_conv", "last_channels")  # what blocks depend on
    blocks = _blocks(
        _blank(network.backbone, {key: network.options[key] for key in own if key in network.options})
    )
    ends = [
        end
        for _, _, end in blocks
        if prod(layer.stride[0] for layer in trunk.convs[:end]) == LOW_LEVEL_STRIDE
    ]
    if ends and trunk.tensors().get(tensor) == ends[-1]:
        return {}
    if ends and network.backbone == "mobilenet_v2" and trunk.convs[ends[-1] - 2].output == tensor:
        return {"low_level_features": "depthwise"}
    raise layers.error("its decoder reads other low-level features than DeepLab's")


def _columns(layers: Layers, concatenation: Layer, order: list[int]) -> list[tuple[int, int]]:
    """(start, length) of the channels that each input of a concatenation becomes, in our order."""
    options = concatenation.operator.options
    if options.get("axis") not in (3, -1) or concatenation.activation:
        raise layers.error("it has a concatenation of something else than channels")
    lengths = [layers.shape(tensor)[-1] for tensor in concatenation.inputs]
    return [(sum(lengths[:index]), lengths[index]) for index in order]
