"""Batch norm folded into the convolution before it: the same logits with a third fewer layers to run."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from atrous.batch_norm import Frozen, SyncBatchNorm2d
from atrous.layers import BatchNorm2d
from atrous.models import smallest_picture

# these do nothing behind the normalisation; timm has kinds that also hold an activation, and they stay
PLAIN = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNorm2d, SyncBatchNorm2d)
PROBE = 65  # side in pixels of the picture that passes, where the model does not need a larger one


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of `model` for inference, with every batch norm that reads one convolution inside its weights.

    Which one reads which is seen as a small picture passes; what it does not pass, such as an auxiliary head, and a
    batch norm that reads something else, stay. Folded in float64: the logits differ by float32's rounding alone.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = _convolutions_of_norms(folded)
    for norm, conv in pairs.items():
        _fold(conv, norm)
    for parent in folded.modules():
        for name, child in parent.named_children():
            if child in pairs:
                setattr(parent, name, _nothing_but_hooks(child))
    return folded


def _convolutions_of_norms(model: nn.Module) -> dict[_BatchNorm, nn.Conv2d]:
    """Batch norm -> the convolution whose output is all that it reads, and that nothing but it reads."""
    produced: dict[
        int, tuple[nn.Module, Tensor, int]
    ] = {}  # the tensor is kept, so that its id stays its own
    read: list[tuple[nn.Module, nn.Module | None]] = []

    def note_output(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        produced[id(output)] = module, output, output._version

    def note_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv, _, version = produced.get(id(inputs[0]), (None, None, None))
        # no ReLU went over it in place
        read.append((module, conv if inputs[0]._version == version else None))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_output))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(note_input))
    weight = next(model.parameters())
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    side = max(PROBE, smallest_picture(model))
    try:
        with torch.inference_mode(False), torch.no_grad():  # whose tensors count what is done to them
            model(weight.new_zeros(1, channels, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    sources: dict[nn.Module, set[nn.Module | None]] = {}
    readers: dict[nn.Module | None, set[nn.Module]] = {}
    for norm, conv in read:
        sources.setdefault(norm, set()).add(conv)
        readers.setdefault(conv, set()).add(norm)
    return {
        norm: conv
        for norm, convs in sources.items()
        if len(convs) == 1 and isinstance(norm, _BatchNorm) and _is_plain(norm)
        for conv in convs
        if isinstance(conv, nn.Conv2d) and readers[conv] == {norm} and not conv._forward_hooks
    }


def _nothing_but_hooks(norm: nn.Module) -> nn.Identity:
    """What stays of a folded batch norm: the rounding of a quantised file (`fake_quantize`)."""
    rest = nn.Identity()
    for hook in norm._forward_hooks.values():
        rest.register_forward_hook(hook)
    return rest


def _is_plain(norm: nn.Module) -> bool:
    kind = type(norm).__mro__[2] if isinstance(norm, Frozen) else type(norm)
    return kind in PLAIN


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    kind = conv.weight.dtype
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(kind), requires_grad=False)
