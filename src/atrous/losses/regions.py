"""Losses that compare the regions of a class: dice and Lovasz-softmax, which is a smooth IoU.

Both take logits (N, C, H, W), labels (N, H, W) int64, and look at the labelled pixels of the whole batch at once.
They are the mean, weighted by class weights (C,), over the classes that occur in the labels; 0, with zero
gradients, where no pixel is labelled.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dice(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """1 - 2 sum(p g) / (sum p + sum g) of each class; p: probability, g: 1 where the pixel is of the class.

    The soft overlap of V-Net (Milletari et al. 2016, arXiv 1606.04797), the sums without squares as in Drozdzal
    et al. 2016 (arXiv 1608.04117).
    """
    probabilities, truth = _labelled(logits, labels, ignore_index)
    p_true = probabilities.gather(1, truth[:, None])[:, 0]
    both = probabilities.new_zeros(probabilities.shape[1]).index_add(0, truth, p_true)
    pixels = torch.bincount(truth, minlength=probabilities.shape[1])
    present = (pixels > 0).nonzero()[:, 0]
    overlap = 2 * both[present] / (probabilities.sum(0)[present] + pixels[present])
    return _mean(1 - overlap, present, class_weights)


def lovasz_softmax(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """The Lovasz extension of 1 - IoU of each class (Berman et al. 2018, arXiv 1705.08790, eq. 8 and 11)."""
    probabilities, truth = _labelled(logits, labels, ignore_index)
    present = truth.unique()
    losses = [lovasz_extension(probabilities[:, c], truth == c) for c in present]
    return _mean(torch.stack(losses) if losses else probabilities.sum(0)[:0], present, class_weights)


def lovasz_extension(probabilities: Tensor, foreground: Tensor) -> Tensor:
    """Lovasz extension of 1 - IoU of one class at its errors; probabilities (P,), foreground (P,) bool.

    Errors in falling order, each times what the IoU loses when its pixel joins the wrong ones (algorithm 1).
    """
    errors = torch.where(foreground, 1 - probabilities, probabilities)
    errors, order = errors.sort(descending=True)
    right = foreground[order].to(errors.dtype)
    intersection = right.sum() - right.cumsum(0)
    union = right.sum() + (1 - right).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return errors @ steps


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Probabilities (P, C) and classes (P,) of the labelled pixels."""
    valid = labels != ignore_index
    return logits.movedim(1, -1)[valid].softmax(1), labels[valid]


def _mean(losses: Tensor, classes: Tensor, class_weights: Tensor | None) -> Tensor:
    """Weighted mean over classes; 0 of none."""
    weights = torch.ones_like(losses) if class_weights is None else class_weights[classes].to(losses.dtype)
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
