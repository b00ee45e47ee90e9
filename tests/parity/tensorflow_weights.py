"""Drawn weights in TensorFlow's names and layout, and the networks of test_tensorflow.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seeded import TABLES, draw_weights
from torch import Tensor

SIZES = [(65, 65), (97, 130)]
STEP = 16
OURS = {"gamma": "weight", "moving_variance": "running_var"}  # by which `draw_weights` knows how to draw


def draw_tensorflow(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """`draw_weights` in TensorFlow's layout: (h, w, in, out), depthwise (h, w, channels, 1)."""
    weights = {}
    for name, shape in shapes.items():
        suffix = name.rsplit("/", 1)[1]
        order = {"weights": (3, 2, 0, 1), "depthwise_weights": (2, 3, 0, 1)}.get(suffix)
        key = f"{name}.{OURS.get(suffix, suffix)}"
        if order is None:
            weights[name] = draw_weights({key: shape})[key]
        else:
            drawn = draw_weights({key: tuple(shape[i] for i in order)})[key]
            back = tuple(order.index(i) for i in range(4))
            weights[name] = drawn.permute(back).contiguous()
    return weights


# of the small files that TensorFlow itself wrote
SMALL = {
    "small/weights": (3, 3, 2, 4),
    "small/depthwise_weights": (3, 3, 4, 1),
    "small/BatchNorm/gamma": (4,),
}
SMALL_FILES = TABLES / "tensorflow_small"

ASPP = {"atrous_rates": [6, 12, 18], "output_stride": 16}
# name -> (model_variant, its flags, options of ours)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mobilenet_v2": ("mobilenet_v2", {"atrous_rates": None, "output_stride": 16}, {}),
    "mobilenet_v2_os8": ("mobilenet_v2", {"atrous_rates": None, "output_stride": 8}, {"output_stride": 8}),
    "mobilenet_v2_dm05": (
        "mobilenet_v2",
        {"atrous_rates": None, "output_stride": 16, "depth_multiplier": 0.5},
        {},
    ),
    "mobilenet_v2_decoder": ("mobilenet_v2", ASPP | {"decoder": 4}, {}),
    "xception_65": ("xception_65", ASPP | {"decoder": 4}, {}),
    "xception_65_os8": (
        "xception_65",
        {"atrous_rates": [12, 24, 36], "output_stride": 8, "decoder": 4},
        {"output_stride": 8},
    ),
    "xception_41_plain": ("xception_41", ASPP | {"decoder": 4, "separable": False}, {}),
    "xception_71_v3": ("xception_71", ASPP, {}),
    "resnet_v1_50_beta": (
        "resnet_v1_50_beta",
        ASPP | {"decoder": 4, "multi_grid": [1, 2, 4], "separable": False},
        {"multi_grid": (1, 2, 4)},
    ),
    "resnet_v1_50_os8": (
        "resnet_v1_50",
        {"atrous_rates": [12, 24, 36], "output_stride": 8, "separable": False},
        {"output_stride": 8},
    ),
    "resnet_v1_101_beta": ("resnet_v1_101_beta", ASPP | {"separable": False}, {}),
}
