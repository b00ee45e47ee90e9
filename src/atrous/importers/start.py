"""Start a training from a TFLite network, whose batch norms are folded into its convolutions.

Such a network cannot be trained as it is: the batch norms have to come back. Each gets the mean and variance
of its input over real pictures, and the scale and shift that undo them, so that it changes nothing, neither in
evaluation nor, on pictures like these, in training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers.convert import Converted
from atrous.importers.files import Content
from atrous.importers.mobile_deeplab import convert

PICTURES_AT_ONCE = 8  # the first layers of 64 pictures would take gigabytes


@torch.no_grad()
def start_backbone(network: nn.Module, path: str | Path, pictures: Tensor) -> Normalization:
    """Give a model, or a network with a `backbone`, the weights of a TFLite classifier or DeepLab.

    The backbone must be the file's. Of a DeepLab's head all weights are taken that fit by name and shape.
    pictures: (N, 3, H, W), 0..255, RGB: a few dozen of the training pictures, for the batch norms. They and
    the network are on one device.

    Returns the normalisation of pictures that belongs to these weights.

    Raises InputError where the file is missing, damaged, or does not fit the backbone.
    """
    converted = _read(path)
    own, weights = network.state_dict(), converted.renamed.weights
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    of_backbone = [{name for name in names if name.startswith("backbone.")} for names in (own, weights, fits)]
    if not of_backbone[0] == of_backbone[1] == of_backbone[2]:
        raise _does_not_fit(path, converted, network)
    network.load_state_dict(fits, strict=False)
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and f"{name}.running_var" in fits
    }
    for norm in norms.values():
        norm.get_buffer("running_var").fill_(1 - norm.eps)  # the file's may have another eps
    normalization = converted.normalization
    mean, std = (
        torch.tensor(values, device=pictures.device).view(-1, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    whole = any(not name.startswith("backbone.") for name in norms)
    run: Any = network.scores if whole else network.backbone
    _restore_batch_norm(network, run, list(norms.values()), (pictures.float() / 255 - mean) / std)
    return normalization


def _read(path: str | Path) -> Converted:
    return convert(Content(str(path), "tflite"))


def _does_not_fit(path: str | Path, converted: Converted, network: nn.Module) -> InputError:
    theirs = converted.config.backbone
    ours = type(network.backbone).__name__
    if ours.lower() != theirs.replace("_", ""):
        return InputError(f"{path}: starts a {theirs}, not a {ours}")
    width = converted.config.options.get("width", 1)
    return InputError(f"{path}: starts a {theirs} of width {width:g} for RGB pictures")


def _restore_batch_norm(
    network: nn.Module, run: Callable[[Tensor], Any], norms: list[nn.BatchNorm2d], x: Tensor
) -> None:
    """Batch norms that add a bias, made to normalise and to undo it. x: (N, 3, H, W), normalised, for `run`.

    In evaluation each is the same before and after, so one pass is enough for all.
    """
    moments: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        moments[norm].append(len(inputs[0]) * torch.stack([mean, variance + mean**2]).double())

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    was_training = network.training
    network.eval()
    try:
        for batch in x.split(PICTURES_AT_ONCE):
            run(batch)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    for norm in norms:
        mean, square = torch.stack(moments[norm]).sum(0) / len(x)
        variance = (square - mean**2).clamp(min=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
