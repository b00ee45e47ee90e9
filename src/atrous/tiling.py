"""Sliding windows: overlapping crops whose scores are averaged (PSPNet sec. 5, the protocol for Cityscapes)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of the fewest evenly spread windows that cover `length` with at least the given overlap."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def slide(
    score: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int], overlap: float = 1 / 3
) -> Tensor:
    """Average `score` over windows of `size` on images (N, 3, H, W) -> (N, C, H, W).

    A picture smaller than the window is padded with 0 (the mean colour after normalisation) and cropped back.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(0, size[1] - width), 0, max(0, size[0] - height)))
    total, count = None, torch.zeros(padded.shape[-2:], device=image.device)
    for top in window_starts(padded.shape[-2], size[0], overlap):
        for left in window_starts(padded.shape[-1], size[1], overlap):
            here = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            scores = score(padded[here])
            if total is None:
                total = scores.new_zeros((*scores.shape[:2], *padded.shape[-2:]))
            total[here] += scores
            count[here] += 1
    assert total is not None
    return (total / count)[..., :height, :width]
