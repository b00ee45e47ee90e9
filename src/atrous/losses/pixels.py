"""Losses that are a mean over pixels: cross entropy, its hardest pixels alone, and focal.

All take logits (N, C, H, W), labels (N, H, W) int64 with `ignore_index` where nothing is labelled, and class
weights (C,) that weigh both the sum and the count. All are 0, with zero gradients, where no pixel is labelled.
average: a number's mean over all processes. The sum of a process is divided by the mean count, so that the mean of
their losses, and of their gradients, is that of all pixels together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.layers import AlignCorners, resize

Average = Callable[[Tensor], Tensor]


def alone(value: Tensor) -> Tensor:
    """The mean over one process."""
    return value


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    *,
    align_corners: AlignCorners = False,
    average: Average = alone,
) -> Tensor:
    """Mean cross entropy over the labelled pixels; 0 where no pixel is labelled.

    Logits on a coarser grid, (N, C, h, w), are first resized to that of the labels. `class_weights` (C,) weigh both
    the sum and the count, as in torch's own weighted mean.
    """
    # on a CPU picture by picture: scores at full size are written and read again while they are in the cache
    pictures = 1 if logits.device.type == "cpu" else len(logits)
    logits = logits.contiguous()  # classes last would be slow to normalise
    total = logits.new_zeros(())
    for part, truth in zip(logits.split(pictures), labels.split(pictures), strict=True):
        grown = resize(part, labels.shape[-2:], align_corners)
        total = total + F.cross_entropy(
            grown, truth, class_weights, ignore_index=ignore_index, reduction="sum"
        )
    valid = labels != ignore_index
    if class_weights is None:
        count = valid.sum().to(total.dtype)
    else:
        count = class_weights[labels[valid]].sum()
    return total / average(count).clamp(min=torch.finfo(total.dtype).tiny)


def ohem(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    *,
    threshold: float = 0.7,
    min_kept: float = 1 / 16,
    average: Average = alone,
) -> Tensor:
    """Cross entropy of the hard pixels alone: bootstrapped (Wu et al. 2016, arXiv 1605.06885), or OHEM.

    Hard is a labelled pixel whose true class has a probability below `threshold`. Where fewer than `min_kept` of
    the batch are, its `min_kept` hardest count: a share of the labelled pixels below 1, otherwise pixels for each
    picture. The defaults are those of BiSeNet's training (Yu et al. 2018).
    """
    nll, truth = _labelled(logits, labels, ignore_index)
    kept = nll.detach() > -math.log(threshold)
    least = round(min_kept * (len(nll) if min_kept < 1 else len(labels)))
    least = min(max(least, 1), len(nll))
    if int(kept.sum()) < least:
        chosen = nll.detach().topk(least).indices
        nll, truth = nll[chosen], truth[chosen]
    else:
        nll, truth = nll[kept], truth[kept]
    return _mean(nll, truth, class_weights, average)


def focal(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    *,
    gamma: float = 2.0,
    average: Average = alone,
) -> Tensor:
    """Mean of -(1 - p)^gamma log p, p = probability of the true class (Lin et al. 2017, arXiv 1708.02002, eq. 5).

    `class_weights` are its alpha; gamma 0 is cross entropy.
    """
    nll, truth = _labelled(logits, labels, ignore_index)
    least = torch.finfo(nll.dtype).eps if gamma < 1 else 0.0  # the power's slope at 0 is infinite below 1
    missed = (-torch.expm1(-nll)).clamp(min=least)  # 1 - p, exact where p is close to 1
    return _mean(missed**gamma * nll, truth, class_weights, average)


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-log p of the true class and that class, (P,) each, of the labelled pixels."""
    nll = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    valid = labels != ignore_index
    return nll[valid], labels[valid]


def _mean(values: Tensor, truth: Tensor, class_weights: Tensor | None, average: Average) -> Tensor:
    """Weighted mean of (P,) values; 0 of none."""
    weights = torch.ones_like(values) if class_weights is None else class_weights[truth].to(values.dtype)
    return (weights * values).sum() / average(weights.sum()).clamp(min=torch.finfo(values.dtype).tiny)
