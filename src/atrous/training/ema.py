"""The moving average of a network's weights, which scores better than the last step's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """`average = d * average + (1 - d) * weights` after every step, batch norm statistics included.

    d = min(decay, (1 + t) / (10 + t)) at step t = 1, 2, ..., so that the start is soon forgotten (TensorFlow's
    ExponentialMovingAverage with num_updates, which DeepLab's authors train with). `network`: the average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network: Any = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
