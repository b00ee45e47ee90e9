"""Typed settings <-> YAML: the model, how a picture is prepared and predicted, and the recipe of a training run.

Importing this file costs no torch: the command line builds its help from it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml

from atrous.errors import InputError, choose
from atrous.replacing import write_text


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of `create_model` that rebuild a model; `options` are the paper's own.

    fake_quantize: of a quantised file, a module's name -> the grids that its output is rounded to
    (`fake_quantize.Grid`).
    """

    name: str
    backbone: str
    num_classes: int
    output_stride: int
    in_channels: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    fake_quantize: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Normalization:
    """`(picture / 255 - mean) / std` for RGB pictures; the default is that of ImageNet-trained weights."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


Settings = TypeVar("Settings")
RECIPES = Path(__file__).parent / "recipes"
Mode = Literal["direct", "resize", "slide"]
Average = Literal["probabilities", "logits"]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_number(value) and isinstance(value, Integral) and int(value) >= 1


@dataclass(frozen=True)
class Protocol:
    """How pictures are predicted, and so what a score means.

    mode: "direct" takes a picture at its own size, "resize" squashes it to `size`, "slide" moves windows of
    `size` over it that overlap by at least the share `overlap`. `size` is (height, width). longer_side: first bring
    the longer side to this many pixels (what the model was trained on, for photos much larger than that); scores are
    brought back to the picture's size. output_stride: run the same weights at this one, atrous rates following
    (DeepLab v3 sec. 3.1); None is the model's own. `scales` and `flip`: all views of the picture are averaged, their
    class "probabilities" (DeepLab v3 sec. 4.1) or their "logits", as `average` says; so are windows where they overlap.
    crf: arguments of `atrous.DenseCRF`, which then refines the probabilities (v1, v2); {} takes its defaults.
    """

    mode: Mode = "direct"
    size: tuple[int, int] | None = None
    longer_side: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    crf: dict[str, float] | None = None
    overlap: float = 1 / 3
    average: Average = "probabilities"
    output_stride: int | None = None

    def __post_init__(self) -> None:
        choose("mode", self.mode, ("direct", "resize", "slide"))
        choose("average", self.average, ("probabilities", "logits"))
        if self.mode != "direct" and self.size is None:
            raise InputError(f"mode {self.mode!r} needs a size (height, width)")
        sides = self.size if isinstance(self.size, tuple | list) else ()
        if self.size is not None and not (len(sides) == 2 and all(map(_is_count, sides))):
            raise InputError(f"size {self.size} is not (height, width) in pixels")
        if self.longer_side is not None and not _is_count(self.longer_side):
            raise InputError(f"longer_side {self.longer_side} must be at least 1 pixel")
        scales = self.scales if isinstance(self.scales, tuple) else ()
        if not scales or not all(_is_number(scale) and 0 < scale < math.inf for scale in scales):
            raise InputError(f"scales {self.scales} must be a list of positive numbers")
        if not isinstance(self.flip, bool):
            raise InputError(f"flip {self.flip} must be true or false")
        if self.crf is not None and not (
            isinstance(self.crf, dict) and all(map(_is_number, self.crf.values()))
        ):
            raise InputError(
                f"crf {self.crf} must be numbers by name, as {{bi_w: 4}}; {{}} takes the CRF's own"
            )
        if not (_is_number(self.overlap) and 0 <= self.overlap < 1):
            raise InputError(f"overlap {self.overlap} must be a share of the window, from 0 to below 1")
        if self.output_stride is not None and not _is_count(self.output_stride):
            raise InputError(f"output_stride {self.output_stride} must be at least 1")

    @property
    def views(self) -> int:
        """How often the network sees a picture, windows apart."""
        return len(self.scales) * (2 if self.flip else 1)

    def __str__(self) -> str:
        size = f" {self.size[0]}x{self.size[1]}" if self.size and self.mode != "direct" else ""
        options = "".join(f" {key}={value:g}" for key, value in (self.crf or {}).items())
        parts = [
            f"{self.mode}{size}" + (f" overlap {self.overlap:.3g}" if self.mode == "slide" else ""),
            f"longer side {self.longer_side}" if self.longer_side else "",
            f"output stride {self.output_stride}" if self.output_stride else "",
            f"scales {' '.join(f'{s:g}' for s in self.scales)}",
            "with flip" if self.flip else "no flip",
            f"mean of {self.average}" if self.views > 1 or self.average == "logits" else "",
            "" if self.crf is None else f"dense CRF{options}",
        ]
        return ", ".join(part for part in parts if part)


@dataclass
class Recipe:
    """Everything a training run depends on. A value of None means: what the model's paper does.

    Args:
        data: folder of the data set, or "scenes" for the built-in drawn one.
        format: layout of the folder.
        train_split: part of the data to learn from.
        val_split: part of the data to measure on.
        data_options: further options of the layout, such as masks, classes or val_fraction.
        model: deeplab_v1, deeplab_v2, pspnet, deeplab_v3 or deeplab_v3plus.
        backbone: the network under it.
        output_stride: input size over feature size.
        pretrained: "imagenet", or a file of backbone weights.
        init: checkpoint to start from instead, ours or any that `atrous import` reads: what fits of backbone and head;
            brings its normalisation.
        model_options: the paper's own options, such as atrous_rates or separable.
        crop_size: training crop in pixels, a side or (height, width).
        longer_side: first bring the longer side of every picture to this many pixels, in training and after;
            None takes pictures as they are.
        scale: range of the random scale.
        flip: mirror left-right at random.
        jitter: strength of the colour jitter, 0 to 1.
        rotation: largest random rotation in degrees.
        blur: blur at random.
        batch_size: pictures in a step.
        epochs: passes over the data; iterations wins over it.
        iterations: steps in all.
        optimizer: "sgd", the papers', or "adamw", which learns faster from scratch in a short run.
        learning_rate: of the backbone, at the start.
        lr_groups: "paper" gives head layers the multiples of the paper (10x, 20x), "uniform" one rate to all.
        schedule: how the learning rate falls.
        power: of the poly schedule.
        step_every: iterations between the tenfold drops of the step schedule.
        warmup: iterations in which the learning rate rises from 0.
        momentum: of SGD.
        weight_decay: of the optimizer.
        ema: decay of a moving average of the weights, such as 0.999, which is then what is measured and saved.
        accumulate: batches whose gradients make one step; an iteration is a step.
        clip_gradients: largest norm of all gradients together.
        compile: compile the network with torch.compile: slow at first, faster then.
        sampling: "uniform" takes every picture once in an epoch; "rare" draws a class, then a picture that shows it;
            "repeat" draws pictures of classes that fewer than a tenth of them show more often, by the square root.
        freeze_bn: keep batch norm statistics as they are.
        freeze_bn_affine: with freeze_bn, keep scales and shifts as they are too.
        sync_bn: batch norm statistics over all processes; one process, or a CPU, keeps its own.
        bn_momentum: share of the new batch in the running statistics (the papers' 3e-4 needs 30,000 iterations).
        loss_at: "logits" shrinks the labels to the logits' grid (v1, v2), "labels" grows the logits (v3, v3+).
        loss: "ce" (cross entropy), "ohem" (of the hard pixels alone), "focal", "dice" or "lovasz", or several with
            their weights, as {ce: 1, dice: 0.5}.
        ohem_threshold: a pixel is hard below this probability of its class.
        ohem_min_kept: at least so many count: a share of the labelled pixels below 1, else pixels for each picture.
        focal_gamma: how fast focal forgets a pixel that is right.
        class_weights: "none"; "median", "enet" or "inverse" from the pixel shares of the data; or one number for
            each class.
        aux_weight: weight of the auxiliary loss.
        protocol: how the checkpoints predict and are evaluated (`Protocol`'s arguments); the run itself measures
            at scale 1, without flip and CRF.
        out: folder of the run; None names one by model and time under runs/.
        seed: of every random choice.
        device: "auto", "cpu", "cuda", "mps".
        devices: how many of them.
        precision: as Lightning Fabric names it, such as 32-true or bf16-mixed; "auto" is bf16-mixed on hardware
            that multiplies bfloat16, 32-true elsewhere.
        workers: processes that load pictures; the run is the same with any number of them.
        skip_broken: leave out pictures that cannot be read, and list them in broken.txt.
        save_every: iterations between two states to resume from; None: three minutes. Also at every evaluation.
        evaluate_every: whole epochs between two measurements; None gives at most 20 in a run.
        max_val: measure on this many pictures during the run; None takes all.
    """

    data: str = "scenes"
    format: str = "auto"
    train_split: str = "train"
    val_split: str = "val"
    data_options: dict[str, Any] = field(default_factory=dict)

    model: str = "deeplab_v3plus"
    backbone: str | None = None
    output_stride: int | None = None
    pretrained: str | None = None
    init: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)

    crop_size: int | tuple[int, int] | None = None
    longer_side: int | None = None
    scale: tuple[float, float] | None = None
    flip: bool = True
    jitter: float = 0.0
    rotation: float | None = None
    blur: bool | None = None

    batch_size: int | None = None
    epochs: float = 50
    iterations: int | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    lr_groups: Literal["paper", "uniform"] = "paper"
    schedule: Literal["poly", "step"] | None = None
    power: float = 0.9
    step_every: int = 2000
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float | None = None
    ema: float | None = None
    accumulate: int = 1
    clip_gradients: float | None = None
    compile: bool = False
    sampling: Literal["uniform", "rare", "repeat"] = "uniform"
    freeze_bn: bool | None = None
    freeze_bn_affine: bool = True
    sync_bn: bool = False
    bn_momentum: float = 0.1
    loss_at: Literal["logits", "labels"] | None = None
    loss: Literal["ce", "ohem", "focal", "dice", "lovasz"] | dict[str, float] = "ce"
    ohem_threshold: float = 0.7
    ohem_min_kept: float = 1 / 16
    focal_gamma: float = 2.0
    class_weights: Literal["none", "median", "enet", "inverse"] | tuple[float, ...] = "none"
    aux_weight: float = 0.4
    protocol: dict[str, Any] = field(default_factory=dict)

    out: str | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "auto"
    workers: int | None = None
    skip_broken: bool = False
    save_every: int | None = None
    evaluate_every: float | None = None
    max_val: int | None = None

    def resolved(self) -> Self:
        """This recipe with every None that the model's paper settles filled in."""
        choose("model", self.model, PAPERS)
        paper = dict(PAPERS[self.model])
        if self.pretrained is not None and self.init is not None:
            raise InputError(
                "pretrained and init are two ways to start: give one, and null for the recipe's other"
            )
        if self.pretrained is None and self.init is None:
            paper["freeze_bn"] = False  # statistics that nobody trained are not worth keeping
        blank = {key: value for key, value in paper.items() if getattr(self, key) is None}
        return dataclasses.replace(self, **blank)


# What each paper trains with (sections: v1 5, v2 4.1, PSPNet 5.1, v3 4, v3+ 4).
PAPERS: dict[str, dict[str, Any]] = {
    "deeplab_v1": {
        "crop_size": 321, "scale": (1.0, 1.0), "rotation": 0.0, "blur": False,
        "batch_size": 20, "learning_rate": 1e-3, "schedule": "step", "weight_decay": 5e-4, "loss_at": "logits",
        "freeze_bn": False,
    },
    "deeplab_v2": {
        "crop_size": 321, "scale": (0.5, 1.5), "rotation": 0.0, "blur": False,
        "batch_size": 10, "learning_rate": 2.5e-4, "schedule": "poly", "weight_decay": 5e-4, "loss_at": "logits",
        "freeze_bn": True,
    },
    "pspnet": {
        "crop_size": 473, "scale": (0.5, 2.0), "rotation": 10.0, "blur": True,
        "batch_size": 16, "learning_rate": 0.01, "schedule": "poly", "weight_decay": 1e-4, "loss_at": "labels",
        "freeze_bn": False,
    },
    "deeplab_v3": {
        "crop_size": 513, "scale": (0.5, 2.0), "rotation": 0.0, "blur": False,
        "batch_size": 16, "learning_rate": 0.007, "schedule": "poly", "weight_decay": 1e-4, "loss_at": "labels",
        "freeze_bn": False,
    },
    "deeplab_v3plus": {
        "crop_size": 513, "scale": (0.5, 2.0), "rotation": 0.0, "blur": False,
        "batch_size": 16, "learning_rate": 0.007, "schedule": "poly", "weight_decay": 4e-5, "loss_at": "labels",
        "freeze_bn": False,
    },
}  # fmt: skip


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as plain YAML / JSON values; a tuple becomes a list."""
    return {f.name: _plain(getattr(settings, f.name)) for f in fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def from_dict(kind: type[Settings], values: dict[str, Any], where: str) -> Settings:
    """Build the dataclass `kind` from plain values; an unknown key is an InputError that suggests the nearest."""
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        try:
            choose("key", key, known)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def recipe_names() -> list[str]:
    """The recipes that the package brings; a checkout has them in recipes/ at the top."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(given: str | Path) -> Path:
    """The file of a recipe: a path, or the bare name of one that the package brings."""
    path = Path(given)
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1 or path.is_file():
        return path
    return RECIPES / f"{choose('recipe', str(given), recipe_names())}.yaml"


def read_recipe(given: str | Path) -> Recipe:
    """Read a YAML recipe, by its path or by the name of one that the package brings.

    InputError where there is none, and for a file that is no YAML mapping or has an unknown key.
    """
    path = find_recipe(given)
    return from_dict(Recipe, read_settings(path), str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """The keys of a YAML file as they are; InputError where it is missing or no mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe is a list of `key: value` lines")
    return values


def write_recipe(recipe: Recipe, path: Path) -> None:
    """As YAML that `read_recipe` takes."""
    write_text(path, yaml.safe_dump(to_dict(recipe), sort_keys=False))
