"""The 8-bit activations of a quantised file in a float network: values rounded to the file's grid and clamped to it.

A file that was trained with quantisation in mind has learnt with this rounding (Jacob et al., Quantization and training
of neural networks for efficient integer-arithmetic-only inference, CVPR 2018, arXiv 1712.05877, sec. 3): a coarse step
behind a mean over a picture, or a sum that saturates, is part of what it computes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from atrous.errors import InputError

# scale, zero point, lowest and highest integer: the values are scale * (q - zero point)
Grid = tuple[float, int, int, int]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class FakeQuantize:
    """A forward hook: a module's output on one grid after another. Gradients pass inside the range (sec. 3)."""

    grids: tuple[Grid, ...]

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        x = output.float()
        for scale, zero, low, high in self.grids:
            inside = (x * (1 / scale)).clamp(low - zero, high - zero)
            rounded = inside.round()
            if inside.requires_grad:
                rounded = inside + (rounded - inside).detach()
            x = rounded * scale
        return x.to(output.dtype)


def fake_quantize(network: nn.Module, grids: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Put the outputs of named modules on their grids, in place. grids: a module's name -> grids, one after another.

    Raises InputError where the network has no such module, or a grid is none.
    """
    for name, of_module in grids.items():
        try:
            module = network.get_submodule(name)
            hook = FakeQuantize(
                tuple((float(s), int(z), int(low), int(high)) for s, z, low, high in of_module)
            )
        except (AttributeError, TypeError, ValueError):
            raise InputError(f"fake_quantize: {name} {of_module} fits no module of this network") from None
        if any(not (s > 0 and low <= z <= high) for s, z, low, high in hook.grids):
            raise InputError(f"fake_quantize: {name} has a grid that is none: {of_module}")
        module.register_forward_hook(hook)


def without_rounding(network: Network) -> Network:
    """A copy whose outputs are all float: what can be exported, as rounding would multiply every last bit."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, FakeQuantize):
                del module._forward_hooks[key]
    return plain
