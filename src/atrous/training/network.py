"""The network of a recipe, with the weights that its training starts from and batch norm as the recipe wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from atrous.batch_norm import freeze, synchronise
from atrous.checkpoint import Metadata
from atrous.config import Normalization, Recipe
from atrous.crf import CRFHead
from atrous.data.base import SegmentationDataset
from atrous.importers.initialise import Taken, initialise
from atrous.kernels.quick_gradients import with_quick_gradients
from atrous.models import create_model
from atrous.training.batches import collate

START_PICTURES = 64  # for the batch norms of weights that have them folded in


def make_network(
    recipe: Recipe, data: SegmentationDataset, fabric: Fabric, kept: Normalization | None
) -> tuple[Any, Taken | None]:
    """(the network, channels last, with its `metadata`: classes and normalisation; what `recipe.init` gave it).

    kept: how pictures are normalised in a run that goes on, whose weights come from its state; None: a run begins.
    """
    network: Any = create_model(
        recipe.model,
        backbone=recipe.backbone,
        num_classes=len(data.labels),
        output_stride=recipe.output_stride,
        pretrained=None if kept else recipe.pretrained,
        **recipe.model_options,
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    taken = None if kept else start(network, recipe, data)
    normalized = kept or (taken and taken.normalization) or Normalization()
    for module in network.modules():
        if isinstance(module, CRFHead):
            module.set_normalization(normalized.mean, normalized.std)
    if recipe.freeze_bn:
        freeze(network, affine=recipe.freeze_bn_affine)
    elif recipe.sync_bn:
        network = synchronise(network, fabric.world_size, fabric.device.type)
    if fabric.device.type == "cpu":
        network = with_quick_gradients(network)
    network = network.to(memory_format=torch.channels_last)
    network.metadata = Metadata(data.labels, normalized)
    return network, taken


def start(network: nn.Module, recipe: Recipe, data: SegmentationDataset) -> Taken | None:
    """Give the network the weights of `recipe.init`, if any."""
    if recipe.init is None:
        return None

    def pictures() -> Tensor:
        indices = np.linspace(0, len(data) - 1, min(START_PICTURES, len(data))).astype(int)
        return collate([(data[int(index)], []) for index in indices]).images

    return initialise(network, recipe.init, pictures, data.labels)
