"""Drawn pictures and scores, the same everywhere: what the CRF's tests and the stored table of pydensecrf share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# name -> (height, width, classes, parameters of atrous.DenseCRF)
CASES: dict[str, tuple[int, int, int, dict[str, float]]] = {
    "defaults": (20, 24, 3, {}),
    "one_iteration": (20, 24, 3, {"iter_max": 1}),
    "wide": (19, 24, 21, {"iter_max": 5, "pos_xy_std": 3, "bi_w": 10, "bi_xy_std": 80, "bi_rgb_std": 13}),
    "two_classes": (17, 20, 2, {"pos_w": 2, "pos_xy_std": 2, "bi_xy_std": 30, "bi_rgb_std": 5}),
    "no_smoothness": (16, 16, 5, {"pos_w": 0, "bi_w": 5, "bi_xy_std": 20, "bi_rgb_std": 20}),
    "many_classes": (7, 9, 150, {"iter_max": 3}),
}


def picture(height: int, width: int) -> Array:
    """A disc and a bar on a gradient, with a little noise: (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([60 + 3 * x, 90 + 2 * y, 120 + x - y], axis=-1).astype(np.float64)
    image[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] = (200, 60, 50)
    image[:, width * 3 // 4 : width * 3 // 4 + 3] = (30, 180, 90)
    noise = (x * 7919 + y * 104729) % 17 - 8
    return np.clip(image + noise[..., None] * 0.7, 0, 255).astype(np.uint8)


def probabilities(classes: int, height: int, width: int, sharpness: float = 2.0) -> Array:
    """Smooth waves, one per class, through a softmax: (C, H, W) float32."""
    c, y, x = np.ogrid[:classes, :height, :width]
    scores = np.sin(x / (3 + c % 5) + c) + np.cos(y / (2 + c % 7) - 2 * c)
    exponent = np.exp(sharpness * scores)
    return (exponent / exponent.sum(0)).astype(np.float32)


def mostly_dead(classes: int, height: int, width: int, level: float = 9e-5) -> Array:
    """As a trained network gives: three classes alive, each of the others up to `level`; (C, H, W) float32."""
    p = probabilities(classes, height, width, 3.0)
    p[3:] = level * probabilities(classes, height, width)[3:] * 10
    p[3:] = np.minimum(p[3:], level)
    p[:3] *= (1 - p[3:].sum(0)) / p[:3].sum(0)
    return p


def gaussian(features: Array) -> Array:
    """The exact kernel exp(-|f_i - f_j|^2 / 2) of (d, N) features: (N, N) float64."""
    f = features.astype(np.float64)
    square = ((f[:, :, None] - f[:, None, :]) ** 2).sum(0)
    return np.exp(-square / 2)


def brute_force(image: Array, p: Array, parameters: dict[str, float]) -> Array:
    """Mean field with exact kernels, in float64 and O(N^2): Q (C, H, W)."""
    chosen = {
        "iter_max": 10,
        "pos_w": 3,
        "pos_xy_std": 1,
        "bi_w": 4,
        "bi_xy_std": 67,
        "bi_rgb_std": 3,
        **parameters,
    }
    classes, height, width = p.shape
    y, x = (a.reshape(-1) for a in np.mgrid[:height, :width])
    position = np.stack([x, y])
    colour = image.reshape(-1, 3).T
    kernel = np.zeros((height * width, height * width))
    for weight, features in (
        (chosen["pos_w"], position / chosen["pos_xy_std"]),
        (chosen["bi_w"], np.concatenate([position / chosen["bi_xy_std"], colour / chosen["bi_rgb_std"]])),
    ):
        k = gaussian(features)
        norm = k.sum(1) ** -0.5
        kernel += weight * norm[:, None] * k * norm
    logits = np.log(np.clip(p.reshape(classes, -1).astype(np.float64), 1e-5, 1))
    q = softmax(logits)
    for _ in range(int(chosen["iter_max"])):
        q = softmax(logits + q @ kernel)
    return q.reshape(p.shape)


def softmax(logits: Array) -> Array:
    """Softmax over the first axis."""
    e = np.exp(logits - logits.max(0))
    result: Array = e / e.sum(0)
    return result
