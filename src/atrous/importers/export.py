"""The way back: a model's weights in another project's names, where that project can hold the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from atrous.backbones import BACKBONES
from atrous.config import ModelConfig
from atrous.errors import InputError, choose
from atrous.importers import smp, torchvision
from atrous.importers.names import Renamed, Table, invert, rename
from atrous.models import MODELS, Model
from atrous.models.deeplab_v3 import aspp_rates


class Target(NamedTuple):
    """fitting: our config -> the nearest one there, in our options, and its names -> ours.

    arrange: our weights -> theirs, for what is more than a name.
    """

    fitting: Callable[[ModelConfig], tuple[ModelConfig, Table]]
    arrange: Callable[[Renamed], Renamed] = lambda found: found


TARGETS: dict[str, Target] = {
    "torchvision": Target(torchvision.fitting),
    "smp": Target(smp.fitting, smp.turn_joined),
}


def export_state_dict(model: Model, target: str) -> dict[str, Tensor]:
    """A model's weights in the names of `target`, "torchvision" or "smp", for load_state_dict(strict=True) there.

    For smp the model there takes `encoder_output_stride`, `decoder_atrous_rates` and the like as they are here; the
    tensors are the model's own, not copies.

    Raises InputError where the project has no such model, with the options that do not fit.
    """
    fitting, arrange = TARGETS[choose("target", target, TARGETS)]
    config = model.config
    wanted, table = fitting(config)
    ours, theirs = _settings(config), _settings(wanted)
    misfits = [
        f"{key}={ours[key]!r}, there {theirs.get(key)!r}" for key in ours if ours[key] != theirs.get(key)
    ]
    if misfits:
        raise InputError(
            f"{target} cannot hold this {config.name} on {config.backbone}: {'; '.join(misfits)}"
        )
    found = rename(arrange(Renamed(dict(model.state_dict()))).weights, dict(invert(table)))
    if found.unknown:
        raise InputError(f"{target} has no place for {', '.join(found.unknown[:3])} of this {config.name}")
    return found.weights


def _settings(config: ModelConfig) -> dict[str, Any]:
    """All that decides what a model computes, its options filled in, in one form."""
    paper = MODELS[config.name]
    builders = [paper.model, *([BACKBONES[config.backbone]] if config.backbone in BACKBONES else [])]
    options = {"encoder_depth": 5} | {
        name: parameter.default
        for builder in builders
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
    }
    options |= paper.backbone_options.get(config.backbone, {}) | config.options
    options |= {"output_stride": config.output_stride, "in_channels": config.in_channels}
    if "atrous_rates" in options and options["atrous_rates"] is None:
        options["atrous_rates"] = aspp_rates(config.output_stride)
    if options.get("aspp_separable") is None:
        options["aspp_separable"] = options.get("separable")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if set(options.get("multi_grid", ())) == {1}:
        options["multi_grid"] = (1,)
    unseen = {"dropout"} | ({"dilate_from"} if config.output_stride == 32 else set())
    if not options.get("aux", False):
        unseen |= {"aux_stage", "aux_channels"}
        # v3 reads the last map alone
        unseen |= {"stage_features"} if config.name == "deeplab_v3" else set()
    return {key: value for key, value in options.items() if key not in unseen}
