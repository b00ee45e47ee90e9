"""What the settings of a recipe can be, asked before a run begins."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from atrous.config import Protocol, Recipe, from_dict
from atrous.errors import InputError
from atrous.models import create_model
from atrous.predict import make_crf


class Bounds(NamedTuple):
    """The numbers that may be; least and most are among them, above and below are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (not self.whole or value == int(value))
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        limits = (f"{word} {value:.10g}" for word, value in words.items() if value is not None)
        return f"a {'whole ' if self.whole else ''}number, {' and '.join(limits)}"


BOUNDS = {
    "crop_size": Bounds(least=1, whole=True),
    "longer_side": Bounds(least=1, whole=True),
    "scale": Bounds(above=0),
    "jitter": Bounds(least=0, most=1),
    "rotation": Bounds(least=0, most=180),
    "batch_size": Bounds(least=1, whole=True),
    "epochs": Bounds(above=0),
    "iterations": Bounds(least=1, whole=True),
    "learning_rate": Bounds(least=0),
    "power": Bounds(least=0),
    "step_every": Bounds(least=1, whole=True),
    "warmup": Bounds(least=0, whole=True),
    "momentum": Bounds(least=0, below=1),
    "weight_decay": Bounds(least=0),
    "ema": Bounds(above=0, below=1),
    "accumulate": Bounds(least=1, whole=True),
    "clip_gradients": Bounds(above=0),
    "bn_momentum": Bounds(least=0, most=1),
    "ohem_threshold": Bounds(above=0, most=1),
    "ohem_min_kept": Bounds(least=0),
    "focal_gamma": Bounds(least=0),
    "aux_weight": Bounds(least=0),
    "seed": Bounds(least=0, most=2**32 - 1, whole=True),
    "devices": Bounds(least=1, whole=True),
    "workers": Bounds(least=0, whole=True),
    "save_every": Bounds(least=1, whole=True),
    "evaluate_every": Bounds(least=1, whole=True),  # a measurement is at the end of an epoch
    "max_val": Bounds(least=1, whole=True),
}


def check_numbers(recipe: Recipe) -> None:
    """InputError for the first setting that is out of its `BOUNDS`; None, which the run settles itself, never is."""
    for name, bounds in BOUNDS.items():
        value = getattr(recipe, name)
        is_pair = name in ("crop_size", "scale") and isinstance(value, tuple | list) and len(value) == 2
        if value is not None and not all(number in bounds for number in (value if is_pair else (value,))):
            two = {"crop_size": " (or two: height, width)", "scale": " (two of them: a range)"}.get(name, "")
            raise InputError(f"{name} {_shown(value)} must be {bounds}{two}")
    scale: Any = recipe.scale
    if scale is not None and (not isinstance(scale, tuple | list) or scale[0] > scale[1]):
        raise InputError(f"scale {_shown(scale)} must be a range, the smaller number first")


def protocol_of(recipe: Recipe) -> Protocol:
    """How the checkpoints are to predict. InputError for what they could not do."""
    protocol = from_dict(Protocol, {"longer_side": recipe.longer_side, **recipe.protocol}, "protocol")
    if protocol.crf is not None:
        make_crf(protocol.crf)
    if protocol.output_stride is not None:
        with torch.device("meta"):  # without memory for it
            create_model(
                recipe.model,
                recipe.backbone,
                num_classes=2,
                output_stride=protocol.output_stride,
                **recipe.model_options,
            )
    return protocol


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)
