"""Drawn weights in Paddle's names, and the networks of test_paddle.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seeded import TABLES, draw_weights
from torch import Tensor

SIZES = [(65, 65), (97, 130)]
STEP = 16
OURS = {"_mean": "running_mean", "_variance": "running_var"}
SMALL = {"conv.weight": (4, 3, 3, 3), "norm.weight": (4,), "norm._mean": (4,), "norm._variance": (4,)}
SMALL_FILES = TABLES / "paddle_small"


def draw_paddle(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """`draw_weights`, which knows batch norm's statistics by PyTorch's names."""
    weights = {}
    for name, shape in shapes.items():
        head, _, last = name.rpartition(".")
        key = f"{head}.{OURS.get(last, last)}"
        weights[name] = draw_weights({key: tuple(shape)})[key]
    return weights


OS8: dict[str, Any] = {"output_stride": 8, "multi_grid": (1, 2, 4)}
OS16: dict[str, Any] = {"output_stride": 16, "multi_grid": (1, 2, 4)}
XCEPTION, STAGES = {"output_stride": 16}, {"backbone_indices": (0, 1)}
RATES = {"aspp_ratios": (1, 12, 24, 36)}
XCEPTIONS = (41, 65)  # depths; the others are ResNet_vd's
# name -> (class, depth, options of its backbone, options of its model, options of ours)
CASES: dict[str, tuple[str, int, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "deeplabv3": ("DeepLabV3", 50, OS8, RATES, {}),
    "deeplabv3p": ("DeepLabV3P", 50, OS8, RATES, {}),
    "deeplabv3p_os16_aligned": (
        "DeepLabV3P", 50, OS16, {"align_corners": True}, {"output_stride": 16, "align_corners": True}
    ),
    "deeplabv3p_resnet101": ("DeepLabV3P", 101, OS8, RATES, {}),
    "deeplabv3p_xception41": ("DeepLabV3P", 41, XCEPTION, STAGES, {}),
    "deeplabv3p_xception65": ("DeepLabV3P", 65, XCEPTION, STAGES, {}),
    "pspnet": ("PSPNet", 50, {"output_stride": 8}, {}, {}),
}  # fmt: skip
