"""Google's mobile DeepLab in TFLite: v3 and v3+ on MobileNetV2 and MobileNetEdgeTPU; and their ImageNet classifiers.

https://github.com/tensorflow/models/tree/master/research/deeplab, quantised or not. The graph is read, not the file's
name: width, atrous rates, decoder, resizes and classes are what its operators say (`tflite_network.py`), and each
convolution is compared with the model's. Batch norm is folded into such a file, so here it only adds a bias.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from atrous.config import ModelConfig, Protocol
from atrous.data.class_names import ADE20K
from atrous.data.labels import CITYSCAPES, VOC, Labels
from atrous.errors import choose
from atrous.fake_quantize import Grid
from atrous.importers.convert import CLASSES, Converted, Source
from atrous.importers.files import Content
from atrous.importers.names import Renamed
from atrous.importers.tflite import Graph
from atrous.importers.tflite_layers import CONVOLUTIONS, Layer, Layers
from atrous.importers.tflite_network import Network, Place, places, read_network, step
from atrous.models import MODELS, Model, create_model

# MLPerf's mobile network: the 31 most frequent classes behind one for all others
ADE20K_31 = Labels.named(("other", *ADE20K.names[:31]))
LABELS: dict[int | None, Labels] = {len(labels): labels for labels in (VOC, CITYSCAPES, ADE20K_31)}
MOBILE: dict[str, Any] = {"atrous_rates": (), "align_corners": True}  # Google's v3 on a classifier's backbone


def recognise(content: Content) -> bool:
    return content.kind == "tflite"


def convert(
    content: Content,
    output_stride: int | None = None,
    model: str | None = None,
    fake_quantize: bool = True,
) -> Converted:
    """output_stride: None takes the file's own. model: what to build on a classifier's backbone; None: a mobile v3.

    fake_quantize: of a DeepLab with 8-bit activations, round and clamp them as the file does (`atrous.fake_quantize`);
    False: the float network of its de-quantised weights.
    """
    graph = Graph(content.path)
    layers = Layers(graph)
    network = read_network(layers)
    own_stride = network.output_stride
    if network.size is None:
        network.model, network.options = model or "deeplab_v3", network.options | ({} if model else MOBILE)
        own_stride = MODELS[choose("model", network.model, MODELS)].output_stride
    elif model not in (None, network.model):
        raise content.error(f"a whole {network.model}; model is for files of a backbone alone")
    classes, stride = network.num_classes or CLASSES, network.output_stride
    config = ModelConfig(network.model, network.backbone, classes, stride, options=network.options)
    renamed = place(layers, network, config)
    grids = activation_grids(layers, network, config) if fake_quantize and network.size else {}
    config = replace(config, output_stride=output_stride or own_stride, fake_quantize=grids)
    # made for one size: smaller pictures are padded to it (with what normalises to 0), larger ones are cut
    protocol = Protocol("slide", network.size) if network.size else Protocol()
    return Converted(config, renamed, graph.normalization(), LABELS.get(network.num_classes), protocol)


def place(layers: Layers, network: Network, config: ModelConfig) -> Renamed:
    """The weights of a graph in our names. InputError where a convolution is not the model's."""
    model = _blank(
        config.name, config.backbone, config.num_classes, config.output_stride, tuple(config.options.items())
    )
    renamed = Renamed()
    taken = set()
    for part, convs in network.parts.items():
        module = model.get_submodule(part)
        columns = network.columns.get(part, [])
        ours = places(module)
        if len(ours) != len(convs):
            raise layers.error(f"{len(convs)} convolutions where {config.name} has {len(ours)} ({part})")
        for layer, own in zip(convs, ours, strict=True):
            _compare(layers, layer, own, f"{part}.{own.conv}".strip("."))
            weight, bias = layers.graph.convolution(layer.operator)
            if columns and layer.kind == "depthwise_conv_2d":  # the next one sorts them too
                weight, bias = _sort(layers, weight, columns, 0), _sort(layers, bias, columns, 0)
            elif columns:
                weight, columns = _sort(layers, weight, columns, 1), []
            _put(renamed, layers, layer, f"{part}.{own.conv}", weight, bias, _norm(module, own, part))
            taken.add(layer.output)
    renamed.left_out = [
        _name(layers, layer.operator.inputs[1])
        for layer in layers
        if layer.kind in CONVOLUTIONS and layer.output not in taken
    ]
    return renamed


def activation_grids(layers: Layers, network: Network, config: ModelConfig) -> dict[str, list[Grid]]:
    """A module's name -> the grids that a quantised file rounds its output to, one after another."""
    model = _blank(
        config.name, config.backbone, config.num_classes, config.output_stride, tuple(config.options.items())
    )
    made = network.others | {"": layers.output}  # the model itself: the logits at the picture's size
    ends = {}
    for part, convs in network.parts.items():
        ours = [f"{part}.{own.end}".strip(".") for own in places(model.get_submodule(part))]
        made |= {name: layer.output for name, layer in zip(ours, convs, strict=True)}
        ends[part] = ours[-1]
    grids = {name: [grid] for name, tensor in made.items() if (grid := layers.graph.grid(tensor))}
    for part, concatenation in network.joined.items():  # which has one grid for all that it joins
        grid = layers.graph.grid(concatenation)
        if grid and grid not in grids.get(ends[part], []):
            grids.setdefault(ends[part], []).append(grid)
    return grids


@lru_cache(maxsize=8)
def _blank(
    name: str, backbone: str, num_classes: int, output_stride: int, options: tuple[tuple[str, Any], ...]
) -> Model:
    with torch.device("meta"):  # its names and shapes
        return create_model(name, backbone, num_classes, output_stride, **dict(options))


def _compare(layers: Layers, layer: Layer, own: Place, name: str) -> None:
    found = step(layers, layer)
    wanted = own.step
    if own.norm is None:  # a classifier: what its range says is no activation
        found = found._replace(activation=layer.operator.options.get("activation"))
    if found != wanted or layer.padding is None:
        raise layers.error(f"a convolution {tuple(found)} where {name} is {tuple(wanted)}")


def _norm(module: nn.Module, own: Place, part: str) -> tuple[str, float] | None:
    if own.norm is None:
        return None
    return f"{part}.{own.norm}", float(module.get_submodule(own.norm).eps)  # type: ignore[arg-type]


def _put(
    renamed: Renamed,
    layers: Layers,
    layer: Layer,
    conv: str,
    weight: Tensor,
    bias: Tensor,
    norm: tuple[str, float] | None,
) -> None:
    conv = conv.strip(".")
    weights_name, bias_name, *_ = (_name(layers, index) for index in (*layer.operator.inputs[1:3], -1))
    renamed.weights[f"{conv}.weight"], renamed.origin[f"{conv}.weight"] = weight, weights_name
    behind = {f"{conv}.bias": bias}
    if norm is not None:
        behind = {f"{norm[0]}.{key}": value for key, value in folded_norm(bias, norm[1]).items()}
    renamed.weights |= behind
    renamed.origin |= dict.fromkeys(behind, bias_name)


def folded_norm(bias: Tensor, eps: float) -> dict[str, Tensor]:
    """The state of a batch norm that only adds `bias`."""
    return {
        "weight": torch.ones_like(bias),
        "bias": bias,
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1 - eps),
        "num_batches_tracked": torch.tensor(0),
    }


def _sort(layers: Layers, values: Tensor, columns: list[tuple[int, int]], axis: int) -> Tensor:
    if sum(length for _, length in columns) != values.shape[axis]:
        raise layers.error(f"a concatenation does not give the {values.shape[axis]} channels that follow")
    return torch.cat([values.narrow(axis, start, length) for start, length in columns], axis)


def _name(layers: Layers, index: int) -> str:
    """What the file calls a tensor; converters join the names of all that they fused, the first says enough."""
    if index < 0:
        return "no bias"
    return layers.graph.tensors[index].name.split(";")[0] or f"tensor {index}"


SOURCE = Source("Google's mobile DeepLab (TFLite)", recognise, convert)
