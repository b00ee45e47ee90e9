"""Class weights from the pixel counts of a training set."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights_from_shares(pixels: Tensor, pictures_pixels: Tensor, kind: str) -> Tensor:
    """Class weights from pixel counts (C,) of a training set.

    "inverse": 1 / share, scaled so that the mean weight of a pixel is 1. "median": median frequency balancing
    (Eigen & Fergus 2015), median(f) / f with f = pixels of the class over the pixels of the pictures that hold
    it. "enet": 1 / ln(1.02 + share) (ENet, Paszke et al. 2016). A class that never occurs gets weight 0.
    """
    pixels = pixels.double()
    if kind == "inverse":
        weights = pixels.sum() / ((pixels > 0).sum() * pixels.clamp(min=1))
    elif kind == "enet":
        weights = 1 / torch.log(1.02 + pixels / pixels.sum())
    elif kind == "median":
        frequency = pixels / pictures_pixels.clamp(min=1)
        weights = frequency[pixels > 0].quantile(0.5) / frequency.clamp(min=1e-12)
    else:
        raise ValueError(f"class weights are 'inverse', 'median' or 'enet', not {kind!r}")
    return torch.where(pixels > 0, weights, 0.0).float()
