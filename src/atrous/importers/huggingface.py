"""transformers' MobileNetV2ForSemanticSegmentation: Google's DeepLab v3 on MobileNetV2 in its mobile form.

No atrous branches (a 1x1 and image pooling), TensorFlow's padding, batch norm with eps 1e-3 in the backbone. There the
logits stay on the features' grid; here they are brought to the picture's size, as its image processor does. Its
dropout is of whole channels, ours of single values.
https://github.com/huggingface/transformers/tree/main/src/transformers/models/mobilenet_v2
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from atrous.backbones.mobilenet_v2 import BLOCKS, STEM_CHANNELS, make_divisible
from atrous.config import ModelConfig, Normalization
from atrous.data.labels import VOC, Labels
from atrous.importers.convert import Converted, Source, assumed
from atrous.importers.files import Content
from atrous.importers.names import Table, rename

STEM = "mobilenet_v2.conv_stem"
STEM_WEIGHT = f"{STEM}.first_conv.convolution.weight"
HEAD_WEIGHT = "segmentation_head.conv_projection.convolution.weight"
BLOCKS_AFTER_STEM = 16
WIDTHS = (1.0, 0.35, 0.5, 0.75, 1.3, 1.4)
MEAN = STD = (0.5, 0.5, 0.5)
HALF = 256  # channels of either branch, which come in another order here
OUTPUT_STRIDE = 8  # of Google's published model; 32 where a config.json has none
FIXED = {"hidden_act": "relu6", "depth_divisible_by": 8, "min_depth": 8, "expand_ratio": 6}


def recognise(content: Content) -> bool:
    return {
        STEM_WEIGHT,
        HEAD_WEIGHT,
        "segmentation_head.conv_pool.convolution.weight",
    } <= content.tensors.keys()


def _layer(theirs: str, conv: str, bn: str) -> Table:
    return {f"{theirs}.convolution": conv, f"{theirs}.normalization": bn}


def table() -> Table:
    """Its names -> ours."""
    features = "backbone.features"
    names = _layer(f"{STEM}.first_conv", f"{features}.0.0", f"{features}.0.1")
    names |= _layer(f"{STEM}.conv_3x3", f"{features}.1.conv.0.0", f"{features}.1.conv.0.1")
    names |= _layer(f"{STEM}.reduce_1x1", f"{features}.1.conv.1", f"{features}.1.conv.2")
    for i in range(BLOCKS_AFTER_STEM):
        theirs, ours = f"mobilenet_v2.layer.{i}", f"{features}.{i + 2}.conv"
        names |= _layer(f"{theirs}.expand_1x1", f"{ours}.0.0", f"{ours}.0.1")
        names |= _layer(f"{theirs}.conv_3x3", f"{ours}.1.0", f"{ours}.1.1")
        names |= _layer(f"{theirs}.reduce_1x1", f"{ours}.2", f"{ours}.3")
    names["mobilenet_v2.conv_1x1"] = (
        None  # the classifier's 1280 channels; the head reads what is before them
    )
    names |= _layer("segmentation_head.conv_aspp", "context.branches.0.0", "context.branches.0.1")
    names |= _layer("segmentation_head.conv_pool", "context.branches.1.conv.0", "context.branches.1.conv.1")
    names |= _layer("segmentation_head.conv_projection", "context.project.0", "context.project.1")
    return names | {"segmentation_head.classifier.convolution": "classifier"}


def convert(
    content: Content,
    output_stride: int | None = None,
    tf_padding: bool | None = None,
    layer_norm_eps: float | None = None,
) -> Converted:
    """Options of its configuration, for weights without config.json or in place of what it says."""
    found = content.extras.get("config")
    said: Mapping[str, Any] = found if isinstance(found, dict) else {"output_stride": OUTPUT_STRIDE}
    weights = content.tensors
    for key, wanted in FIXED.items():
        if said.get(key, wanted) != wanted:
            raise content.error(f"its {key} is {said[key]!r}; {wanted!r} alone is known here")
    if not said.get("first_layer_is_expansion", True):
        raise content.error("its first_layer_is_expansion is false, which is not known here")
    stride = said.get("output_stride", 32) if output_stride is None else output_stride
    same = said.get("tf_padding", True) if tf_padding is None else tf_padding
    eps = float(said.get("layer_norm_eps", 1e-3) if layer_norm_eps is None else layer_norm_eps)
    if stride not in (8, 16, 32):
        raise content.error(f"its output_stride is {stride!r}, not 8, 16 or 32")
    if not 0 < eps < 1:
        raise content.error(f"its layer_norm_eps is {eps}, not between 0 and 1")

    channels = _channels(weights)
    _check_shortcuts(content, channels, stride)
    options: dict[str, Any] = {
        "atrous_rates": (),
        "width": _width(content, channels, said.get("depth_multiplier")),
        "padding": "same" if same else "symmetric",
        "eps": eps,
        "dropout": min(1.0, max(0.0, float(said.get("classifier_dropout_prob", 0.8)))),
    }
    classes = len(weights["segmentation_head.classifier.convolution.weight"])
    config = ModelConfig("deeplab_v3", "mobilenet_v2", classes, stride, options=options)
    renamed = rename(weights, table())
    projection = renamed.weights["context.project.0.weight"]
    renamed.weights["context.project.0.weight"] = projection.roll(HALF, 1)  # its image pooling comes first
    normalization = _normalization(content) or Normalization(MEAN, STD)
    notes = []
    if not isinstance(found, dict):  # without config.json
        notes = assumed(config, output_stride=output_stride, padding=tf_padding, eps=layer_norm_eps)
    return Converted(config, renamed, normalization, _labels(said, classes), notes=notes)


def _channels(weights: Mapping[str, Tensor]) -> list[int]:
    """Channels behind the stem's two convolutions and every block."""
    names = [f"{STEM}.first_conv", f"{STEM}.reduce_1x1"]
    names += [f"mobilenet_v2.layer.{i}.reduce_1x1" for i in range(BLOCKS_AFTER_STEM)]
    return [len(weights[f"{name}.convolution.weight"]) for name in names]


def _width(content: Content, channels: list[int], said: Any) -> float:
    """depth_multiplier: the width whose channels these are."""
    plain = [STEM_CHANNELS, *(c for _, c, n, _ in BLOCKS for _ in range(n))]
    for width in WIDTHS if said is None else (float(said),):
        if 0 < width < 10 and channels == [make_divisible(c * width) for c in plain]:
            return width
    raise content.error(f"its channels {channels} are not MobileNetV2's at a known width ({said or WIDTHS})")


def _check_shortcuts(content: Content, channels: list[int], output_stride: int) -> None:
    """There a block has a shortcut where its sizes agree; here where those of the plain network do, and in the stem."""
    strides = [s if i == 0 else 1 for *_, n, s in BLOCKS for i in range(n)]
    reached = 2
    for i, ((before, after), stride) in enumerate(zip(pairwise(channels), strides, strict=True)):
        dilated = stride > 1 and reached == output_stride
        reached *= 1 if dilated else stride
        if before == after and (i == 0 or dilated):
            raise content.error(f"at its width block {i} has {before} channels on both sides, unknown here")


def _labels(said: Mapping[str, Any], classes: int) -> Labels | None:
    named = said.get("id2label")
    if isinstance(named, dict):
        names = [str(named.get(str(i), named.get(i, ""))) for i in range(classes)]
        if all(names) and not all(name.startswith("LABEL_") for name in names):
            return Labels.named(names)
    return VOC if classes == len(VOC) else None


def _normalization(content: Content) -> Normalization | None:
    """What preprocessor_config.json says, for pictures in 0..1."""
    said = content.extras.get("preprocessor")
    if not isinstance(said, dict):
        return None
    scale = 255 * float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 255.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if said.get("do_normalize", True):
        mean, std = (tuple(float(v) for v in said.get(key, MEAN)) for key in ("image_mean", "image_std"))
    if not 0 < scale < 1e6 or len(mean) != len(std) or not min(std) > 0:
        raise content.error(
            f"its preprocessor_config.json has mean {mean}, std {std} and scale {scale / 255:g}"
        )
    return Normalization(tuple(round(m / scale, 9) for m in mean), tuple(round(s / scale, 9) for s in std))


SOURCE = Source("transformers' MobileNetV2ForSemanticSegmentation", recognise, convert)
