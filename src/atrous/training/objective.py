"""What a recipe asks the training to make small: scores, the options of its losses, and the weights of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous import losses
from atrous.config import Recipe
from atrous.data.base import SegmentationDataset
from atrous.errors import InputError, choose
from atrous.training.batches import class_pixels


class Scores(nn.Module):
    """A network that, when called, gives the scores that the loss needs: `network.scores`.

    Precision and the exchange of gradients are Fabric's, and they hold for calls of the module that it set up alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = self.network.scores(x)  # type: ignore[operator]
        return scores


def loss_options(recipe: Recipe) -> dict[str, dict[str, float]]:
    """The options of each loss; InputError for a loss that is none."""
    losses.loss_terms(recipe.loss)
    return {
        "ohem": {"threshold": recipe.ohem_threshold, "min_kept": recipe.ohem_min_kept},
        "focal": {"gamma": recipe.focal_gamma},
    }


def class_weights(
    data: SegmentationDataset, kind: str | Sequence[float], skip_broken: bool = False
) -> Tensor | None:
    """One weight for each class: those given, or from the pixel shares of all training masks; None for "none"."""
    if kind == "none":
        return None
    if not isinstance(kind, str):
        if len(kind) != len(data.labels) or not all(0 <= weight < math.inf for weight in kind):
            raise InputError(
                f"class_weights has {len(kind)} numbers; the data has {len(data.labels)} classes, and each needs "
                "one from 0 up"
            )
        if not any(kind):
            raise InputError(f"class_weights {list(kind)}: at least one class must count")
        return torch.tensor(kind, dtype=torch.float32)
    choose("class_weights", kind, ("none", "median", "enet", "inverse"))
    pixels, labelled = (torch.from_numpy(counts) for counts in class_pixels(data, skip_broken))
    return losses.class_weights_from_shares(pixels.sum(0), labelled @ (pixels > 0).long(), kind)
