"""Cross entropy on the papers' two grids: labels shrunk to the logits (v1, v2) or logits grown to the labels (v3)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.layers import AlignCorners, resize

Grid = Literal["logits", "labels"]


def cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """Mean cross entropy over the labelled pixels of (N, C, H, W) logits; 0 where no pixel is labelled.

    `class_weights` (C,) weigh both the sum and the count, as in torch's own weighted mean.
    """
    total = F.cross_entropy(logits, labels, class_weights, ignore_index=ignore_index, reduction="sum")
    valid = labels != ignore_index
    if class_weights is None:
        count = valid.sum().to(total.dtype)
    else:
        count = class_weights[labels[valid]].sum()
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)


def shrink_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) labels on the coarser grid of the logits, by nearest neighbour (DeepLab v1 sec. 4.1)."""
    return F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def segmentation_loss(
    scores: dict[str, Tensor],
    labels: Tensor,
    *,
    loss_at: Grid = "labels",
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    aux_weight: float = 0.4,
    align_corners: AlignCorners = False,
) -> Tensor:
    """Sum of the cross entropies of every score map that `model.scores` gives in training.

    "out" and, with v2's multi-scale input, "scale_*" count fully (DeepLab v2 sec. 4.1.2 supervises each scale
    and their maximum); "aux" counts `aux_weight` (PSPNet sec. 3.3). `labels`: (N, H, W) int64 at the input size.
    """
    loss = labels.new_zeros((), dtype=scores["out"].dtype)
    for name, logits in scores.items():
        if loss_at == "logits":
            size = (logits.shape[-2], logits.shape[-1])
            term = cross_entropy(logits, shrink_labels(labels, size), class_weights, ignore_index)
        else:
            grown = resize(logits, labels.shape[-2:], align_corners)
            term = cross_entropy(grown, labels, class_weights, ignore_index)
        loss = loss + (aux_weight * term if name == "aux" else term)
    return loss


def class_weights_from_shares(pixels: Tensor, pictures_pixels: Tensor, kind: str) -> Tensor:
    """Class weights from pixel counts (C,) of a training set.

    "median": median frequency balancing (Eigen & Fergus 2015), median(f) / f with f = pixels of the class over
    the pixels of the pictures that hold it. "enet": 1 / ln(1.02 + share) (ENet, Paszke et al. 2016).
    A class that never occurs gets weight 0.
    """
    pixels = pixels.double()
    if kind == "enet":
        weights = 1 / torch.log(1.02 + pixels / pixels.sum())
    elif kind == "median":
        frequency = pixels / pictures_pixels.clamp(min=1)
        weights = frequency[pixels > 0].median() / frequency.clamp(min=1e-12)
    else:
        raise ValueError(f"class weights are 'median' or 'enet', not {kind!r}")
    return torch.where(pixels > 0, weights, 0.0).float()
