"""Start a training from a classifier whose batch norm is folded into its convolutions.

Such a network cannot be trained as it is: the batch norms have to come back. Each gets the mean and variance
of its input over real pictures, and the scale and shift that undo them, so that it changes nothing, neither in
evaluation nor, on pictures like these, in training.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from atrous.backbones.mobilenet_v2 import MobileNetV2
from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers.tflite import Graph

PICTURES_AT_ONCE = 8  # the first layers of 64 pictures would take gigabytes


def backbone_weights(path: str | Path, eps: float = 1e-5) -> dict[str, Tensor]:
    """The state dict of `mobilenet_v2` (width 1) from the TFLite file of an ImageNet classifier.

    Convolutions de-quantised; each batch norm only adds the folded bias: running_mean 0, running_var 1 - eps,
    weight 1. `eps`: that of the backbone's batch norms.

    Raises InputError where the file is missing, damaged, or holds another network.
    """
    return _folded_weights(Graph(path), eps)


@torch.no_grad()
def start_backbone(network: nn.Module, path: str | Path, pictures: Tensor) -> Normalization:
    """Give `network.backbone`, a `mobilenet_v2` of width 1, the weights of a TFLite ImageNet classifier.

    pictures: (N, 3, H, W), 0..255, RGB: a few dozen of the training pictures, for the batch norms. They and
    the network are on one device.

    Returns the normalisation of pictures that belongs to these weights.

    Raises InputError where the file is missing, damaged, or does not fit the backbone.
    """
    backbone = network.backbone
    if not isinstance(backbone, MobileNetV2):
        raise InputError(f"{path}: starts a mobilenet_v2, not a {type(backbone).__name__}")
    graph = Graph(path)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    try:
        backbone.load_state_dict(_folded_weights(graph, norms[0].eps))
    except RuntimeError:
        raise InputError(f"{path}: starts a mobilenet_v2 of width 1 for RGB pictures") from None
    normalization = graph.normalization()
    mean, std = (
        torch.tensor(values, device=pictures.device).view(-1, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    _restore_batch_norm(backbone, norms, (pictures.float() / 255 - mean) / std)
    return normalization


def _folded_weights(graph: Graph, eps: float) -> dict[str, Tensor]:
    with torch.device("meta"):  # its names and shapes
        plain = MobileNetV2(output_stride=32)
    layers = list(plain.named_modules())
    convolutions = [(name, module) for name, module in layers if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in layers if isinstance(module, nn.BatchNorm2d)]
    operators = [op for op in graph.operators if op.name in ("conv_2d", "depthwise_conv_2d")]
    if len(operators) < len(convolutions):
        raise graph.error(f"{len(operators)} convolutions are no MobileNetV2")

    weights: dict[str, Tensor] = {}
    for operator, (conv, module), norm in zip(operators, convolutions, norms, strict=False):
        weight, bias = graph.convolution(operator)
        if weight.shape != module.weight.shape or operator.options.get("stride") != module.stride:
            raise graph.error(
                f"a convolution {tuple(weight.shape)} where MobileNetV2 has {tuple(module.weight.shape)}"
            )
        weights |= {
            f"{conv}.weight": weight,
            f"{norm}.weight": torch.ones_like(bias),
            f"{norm}.bias": bias,
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.full_like(bias, 1 - eps),
            f"{norm}.num_batches_tracked": torch.tensor(0),
        }
    return weights


def _restore_batch_norm(backbone: nn.Module, norms: list[nn.BatchNorm2d], x: Tensor) -> None:
    """Batch norms that add a bias, made to normalise and to undo it. x: (N, 3, H, W), normalised.

    In evaluation each is the same before and after, so one pass is enough for all.
    """
    moments: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        moments[norm].append(len(inputs[0]) * torch.stack([mean, variance + mean**2]).double())

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    was_training = backbone.training
    backbone.eval()
    try:
        for batch in x.split(PICTURES_AT_ONCE):
            backbone(batch)
    finally:
        backbone.train(was_training)
        for hook in hooks:
            hook.remove()
    for norm in norms:
        mean, square = torch.stack(moments[norm]).sum(0) / len(x)
        variance = (square - mean**2).clamp(min=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
