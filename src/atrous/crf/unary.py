"""Unary energies: what the classifier said of each pixel alone, as -log P (Kraehenbuehl & Koltun 2011, eq. 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atrous.errors import InputError

PROBABILITY_FLOOR = 1e-5  # the papers' released code clips probabilities here before the logarithm


def unary_from_probabilities(probabilities: Tensor, clip: float = PROBABILITY_FLOOR) -> Tensor:
    """Return -log(clip(P, `clip`, 1)); shape and dtype stay. Differentiable."""
    clipped = probabilities.clamp(min=clip, max=1.0)
    # in place: these arrays are large
    return -clipped.log() if clipped.requires_grad else clipped.log_().neg_()


def unary_from_logits(logits: Tensor, dim: int = 0) -> Tensor:
    """Return -log softmax of `logits` along the class axis `dim`; shape and dtype stay. Differentiable."""
    return -torch.log_softmax(logits, dim=dim)


def unary_from_labels(
    labels: Tensor, num_classes: int, confidence: float = 0.5, unsure_label: int | None = 255
) -> Tensor:
    """Energies of a label map that is right with probability `confidence`.

    labels: integers 0..num_classes-1 of any shape (...); pixels of `unsure_label` get a uniform distribution.
    Returns (num_classes, ...) float32. Raises InputError for a label out of range or a confidence outside (0, 1).
    """
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels: wanted integers, got {labels.dtype}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: wanted a number between 0 and 1, both excluded, got {confidence}")
    labels = labels.long()
    unsure = (
        labels == unsure_label if unsure_label is not None else torch.zeros_like(labels, dtype=torch.bool)
    )
    wrong = ~unsure & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        bad = int(labels[wrong][0])
        raise InputError(
            f"labels: {bad} is out of range, wanted 0..{num_classes - 1} (unsure: {unsure_label})"
        )
    other = (1 - confidence) / (num_classes - 1) if num_classes > 1 else 1.0
    energy = torch.full((num_classes, *labels.shape), -math.log(other), device=labels.device)
    energy.scatter_(0, labels.masked_fill(unsure, 0)[None], -math.log(confidence))
    return torch.where(unsure, math.log(num_classes), energy)
