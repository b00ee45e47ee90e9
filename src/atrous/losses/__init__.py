"""The losses, and the two grids they are taken on: labels shrunk to the logits (v1, v2), or logits grown to the
labels (v3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.errors import InputError, choose
from atrous.layers import AlignCorners, resize
from atrous.losses.class_weights import class_weights_from_shares
from atrous.losses.pixels import Average, alone, cross_entropy, focal, ohem
from atrous.losses.regions import dice, lovasz_softmax

__all__ = [
    "LOSSES",
    "class_weights_from_shares",
    "cross_entropy",
    "dice",
    "focal",
    "loss_terms",
    "lovasz_softmax",
    "ohem",
    "segmentation_loss",
    "shrink_labels",
]

Grid = Literal["logits", "labels"]

# each (logits (N, C, H, W), labels (N, H, W), class_weights (C,) or None, ignore_index, **options) -> a number
LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy,
    "ohem": ohem,
    "focal": focal,
    "dice": dice,
    "lovasz": lovasz_softmax,
}
PIXELS = ("ce", "ohem", "focal")  # means over pixels, over those of all processes


def loss_terms(loss: str | Mapping[str, float]) -> dict[str, float]:
    """What a recipe's `loss` adds up: "ce" is {"ce": 1}. InputError for an unknown name or a weight below 0."""
    terms = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    for name, weight in terms.items():
        choose("loss", name, LOSSES)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise InputError(f"loss: the weight {weight!r} of {name} must be a number from 0 up")
    if not any(terms.values()):
        raise InputError(f"loss: {loss} adds up nothing; choose from {', '.join(LOSSES)}")
    return terms


def shrink_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) labels on the coarser grid of the logits, by nearest neighbour (DeepLab v1 sec. 3.1)."""
    return F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def segmentation_loss(
    scores: dict[str, Tensor],
    labels: Tensor,
    *,
    loss: str | Mapping[str, float] = "ce",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    loss_at: Grid = "labels",
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    aux_weight: float = 0.4,
    align_corners: AlignCorners = False,
    average: Average = alone,
) -> Tensor:
    """Sum of the losses of every score map that `model.scores` gives in training.

    "out" and, with v2's multi-scale input, "scale_*" count fully (DeepLab v2 sec. 4.1.2 supervises each scale
    and their maximum); "aux" counts `aux_weight` (PSPNet sec. 3.3). `labels`: (N, H, W) int64 at the input size.
    `loss`: a name of `LOSSES`, or several with their weights, as {"ce": 1, "dice": 0.5}; `options` of each, as
    {"focal": {"gamma": 2}}. `average`: a number's mean over all processes (see `losses.pixels`); dice and lovasz look
    at the regions of each process's own pictures.
    """
    terms = loss_terms(loss)
    total = torch.zeros((), device=labels.device)
    for name, logits in scores.items():
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums over pixels need it
        coarse, truth = logits, labels
        if loss_at == "logits":
            truth = shrink_labels(labels, (logits.shape[-2], logits.shape[-1]))
        elif set(terms) != {"ce"}:
            logits = resize(logits, labels.shape[-2:], align_corners)
        for kind, weight in terms.items():
            settings = dict((options or {}).get(kind, {}))
            if kind in PIXELS:
                settings["average"] = average
            if kind == "ce":  # brings the scores to the labels' size itself
                settings["align_corners"] = align_corners
            term = LOSSES[kind](
                coarse if kind == "ce" else logits, truth, class_weights, ignore_index, **settings
            )
            total = total + (aux_weight if name == "aux" else 1) * weight * term
    return total
