"""A checkpoint of any known source as one of our models, with an account of where every weight went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from atrous.checkpoint import Metadata
from atrous.config import ModelConfig, Normalization, Protocol
from atrous.data.labels import Labels
from atrous.errors import InputError, choose
from atrous.importers.files import Content
from atrous.importers.names import Renamed, Table, rename
from atrous.models import MODELS, Model, build_model


@dataclass
class Converted:
    """What a source makes of a file: the model that it belongs in, and its weights in that model's names.

    notes: what else the report has to say.
    """

    config: ModelConfig
    renamed: Renamed
    normalization: Normalization = field(default_factory=Normalization)
    labels: Labels | None = None
    protocol: Protocol = field(default_factory=Protocol)
    notes: list[str] = field(default_factory=list)


class Source(NamedTuple):
    """A project whose checkpoints are known.

    what: one line. recognise: whether a file is of it. convert: (content, options) -> Converted; options are what the
    weights alone cannot tell, such as output_stride, and default to the project's own. backbones: its files hold
    backbones alone.
    """

    what: str
    recognise: Callable[[Content], bool]
    convert: Callable[..., Converted]
    backbones: bool = False


@dataclass
class Report:
    """Where the weights of a file went. Names are (theirs, ours), shapes (theirs, ours)."""

    source: str
    path: str
    config: ModelConfig
    used: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unused: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    missing: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    other_shape: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.render()

    def render(self, most: int = 4) -> str:
        """The report in lines, `most` names of each kind."""
        c = self.config
        renamed = [f"{theirs} -> {ours}" for theirs, ours in self.renamed]
        lines = [
            f"{self.path}: {self.source}",
            f"  {'model':10s} {c.name}, {c.backbone}, {c.num_classes} classes, output stride {c.output_stride}",
            *(f"  {'note':10s} {note}" for note in self.notes),
        ]
        for title, names in (
            ("used", self.used),
            ("renamed", renamed),
            ("left out", self.left_out),
            ("unused", [f"{name} {shape}" for name, shape in self.unused]),
            ("missing", [f"{name} {shape}" for name, shape in self.missing]),
            ("mis-shaped", [f"{name} {theirs}, not {ours}" for name, theirs, ours in self.other_shape]),
            ("new", [f"{name} (another number of classes)" for name in self.swapped]),
        ):
            more = [f"... {len(names) - most} more"] if len(names) > most else []
            lines += [
                f"  {title if i == 0 else '':10s} {f'{len(names):4d}' if i == 0 else '':4s} {name}"
                for i, name in enumerate([*names[:most], *more])
            ]
        return "\n".join(lines)


HEAD = "head"
EPS = 1e-5  # of a batch norm, torch's own
CLASSES = 21  # where the file has no classifier: create_model's own number


def numbers_of(
    content: Content, name: str, given: Sequence[int] | None, own: Sequence[int]
) -> tuple[int, ...]:
    """An option of whole numbers, as many as the project's own, which None takes; InputError for others."""
    if given is None:
        return tuple(own)
    fits = isinstance(given, (list, tuple)) and all(type(n) is int and 0 < n < 4097 for n in given)
    if not fits or len(given) != len(own):
        raise content.error(f"{name} {given!r}: wanted {len(own)} whole numbers from 1 up")
    return tuple(given)


def assumed(config: ModelConfig, **given: Any) -> list[str]:
    """A note of what decides the scores and is neither given nor in the file.

    given: option of the network -> what was given, or said beside the weights; None where nothing was.
    """
    taken = {"output_stride": config.output_stride} | config.options
    values = {name: taken[name] for name, value in given.items() if value is None and name in taken}
    said = [f"{name} {' '.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in values.items()]
    return [f"{', '.join(said)}: the project's own, the file does not say"] if said else []


def take_epsilon(weights: dict[str, Tensor], where: str, eps: float) -> None:
    """Another epsilon of a part's batch norms than torch's goes into their variances: var + eps stays what it is."""
    for name, value in weights.items():
        if eps != EPS and name.startswith(f"{where}.") and name.endswith(".running_var"):
            weights[name] = value + (eps - EPS)


def backbone_only(
    content: Content,
    model: str,
    backbone: str,
    table: Table,
    output_stride: int | None = None,
    normalization: Normalization | None = None,
    **options: Any,
) -> Converted:
    """What a file that holds a backbone alone becomes: `model` on it; allow_missing="head" gives it a new head.

    table: their names -> the backbone's own, without "backbone." before them; {"": ""} where they agree.
    output_stride: None takes that of the model's paper. options: of `create_model`.
    """
    paper = MODELS[choose("model", model, MODELS)]
    inside = {
        theirs: None if ours is None else f"backbone.{ours}".rstrip(".") for theirs, ours in table.items()
    }
    stride = output_stride or paper.output_stride
    config = ModelConfig(model, backbone, CLASSES, stride, options=options)
    return Converted(config, rename(content.tensors, inside), normalization or Normalization())


AUX = "aux.4"  # the last layer of an auxiliary head


def without_other_aux(converted: Converted) -> Converted:
    """An auxiliary head of another number of classes than the classifier's is left out: a trained classifier was put
    in place of another, and the head, which has no part in predictions, forgotten.
    """
    config, found = converted.config, converted.renamed
    last = found.weights.get(f"{AUX}.weight")
    if last is None or len(last) == config.num_classes:
        return converted
    theirs = {ours: name for ours, name in found.origin.items() if ours.startswith("aux.")}
    renamed = replace(
        found,
        weights={name: value for name, value in found.weights.items() if name not in theirs},
        left_out=[*found.left_out, *theirs.values()],
    )
    config = replace(config, options=config.options | {"aux": False})
    note = (
        f"the auxiliary head tells {len(last)} classes, the classifier {config.num_classes}: left out, as only "
        "training has a use for it"
    )
    return replace(converted, config=config, renamed=renamed, notes=[*converted.notes, note])


def two_classes(converted: Converted) -> Converted:
    """One class with a sigmoid as two with a softmax, exactly: softmax((0, z)) is (1 - sigmoid(z), sigmoid(z)).

    Classifier and auxiliary head get a first row of zeros. What has more classes passes untouched.
    """
    if converted.config.num_classes != 1:
        return converted
    config = replace(converted.config, num_classes=2)
    with torch.device("meta"):
        one, two = (build_model(c).state_dict() for c in (converted.config, config))
    found = converted.renamed.weights
    for name in found.keys() & one.keys():
        if found[name].shape == one[name].shape != two[name].shape:
            found[name] = torch.cat([torch.zeros_like(found[name]), found[name]])
    note = "one class with a sigmoid there; here two with a softmax: class 1 has the same probability"
    return replace(converted, config=config, notes=[*converted.notes, note])


def build(
    content: Content,
    source: str,
    converted: Converted,
    num_classes: int | None = None,
    allow_missing: str | None = None,
) -> Model:
    """Build the model, in eval mode, with `metadata` and `report`.

    Pictures have the channels that the file's first convolution reads. num_classes: another number than the file's
    gives the layers of that size new weights. allow_missing: "head" lets weights outside the backbone be missing; they
    are new then too.

    Raises InputError where a weight is missing, has another shape, or values that are not finite.
    """
    config, found = converted.config, converted.renamed
    if allow_missing not in (None, HEAD):
        raise InputError(f'allow_missing: wanted "{HEAD}", got {allow_missing!r}')
    if num_classes is not None:
        config = replace(config, num_classes=num_classes)
    model = build_model(config)
    channels = picture_channels(model, found.weights)
    if channels != config.in_channels:
        config = replace(config, in_channels=channels)
        model = build_model(config)
    report = Report(source, content.path, config, left_out=found.left_out, notes=list(converted.notes))
    if content.others:
        report.notes += [
            f"further weights are in the file, not taken: {', '.join(content.others)}; --weights NAME takes them"
        ]
    report.unused = [(name, tuple(content.tensors[name].shape)) for name in found.unknown]
    taken = _sort(report, found, model.state_dict(), converted.config.num_classes)
    missing = [m for m in report.missing if allow_missing is None or m[0].startswith("backbone.")]
    if missing or report.other_shape:
        raise content.error(_complaint(report, missing))
    broken = next((name for name, tensor in taken.items() if not torch.isfinite(tensor).all()), None)
    if broken is not None:
        raise content.error(
            f"{found.origin[broken]} has values that are not finite: a damaged file, or a lost training"
        )
    model.load_state_dict(taken, strict=False)
    labels = converted.labels
    if labels is None or len(labels) != config.num_classes:
        labels = Labels.named([f"class_{i}" for i in range(config.num_classes)])
    model.metadata = Metadata(labels, converted.normalization, converted.protocol)  # type: ignore[assignment]
    model.report = report  # type: ignore[assignment]
    return model.eval()


def picture_channels(model: Model, weights: Mapping[str, Tensor]) -> int:
    """How many the first convolution of these weights reads; the model's own where they have none."""
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    match tuple(weights.get(f"{first}.weight", torch.empty(0)).shape):
        case (_, channels, _, _) if channels > 0:
            return channels
    return model.config.in_channels


def _sort(report: Report, found: Renamed, own: dict[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """Tell what fits from what does not, into `report`; returns what fits."""
    taken = {}
    for name, tensor in found.weights.items():
        theirs = found.origin[name]
        shape = tuple(tensor.shape)
        if name not in own:
            report.unused.append((theirs, shape))
            continue
        wanted = tuple(own[name].shape)
        if shape == wanted:
            taken[name] = tensor
            if name == theirs:
                report.used.append(name)
            else:
                report.renamed.append((theirs, name))
        elif (
            shape[1:] == wanted[1:]
            and shape[:1] == (num_classes,)
            and wanted[:1] == (report.config.num_classes,)
        ):
            report.swapped.append(name)
        else:
            report.other_shape.append((name, shape, wanted))
    there = {*taken, *report.swapped, *(name for name, *_ in report.other_shape)}
    for name, tensor in own.items():
        if name not in there and not name.endswith("num_batches_tracked"):  # old files do not count batches
            report.missing.append((name, tuple(tensor.shape)))
    return taken


def _complaint(report: Report, missing: list[tuple[str, tuple[int, ...]]]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing, first {missing[0][0]} {missing[0][1]}")
    if report.other_shape:
        name, theirs, ours = report.other_shape[0]
        parts.append(
            f"{len(report.other_shape)} have another shape, first {name} {theirs} where {ours} is wanted"
        )
    if report.unused:
        parts.append(f"{len(report.unused)} are unknown, first {report.unused[0][0]}")
    advice = ""
    if missing and not any(name.startswith("backbone.") for name, _ in missing) and not report.other_shape:
        advice = "; --allow-missing head gives the head new weights"
    return f"taken for {report.source}, does not fit {report.config.name}: {'; '.join(parts)}{advice}"
