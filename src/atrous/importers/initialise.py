"""Start a training from any checkpoint that can be read here: the whole model where it fits, otherwise its backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atrous.backbones.weights import adapt_input
from atrous.checkpoint import load, locate, metadata_of
from atrous.config import Normalization
from atrous.data.labels import Labels, first_difference
from atrous.errors import InputError
from atrous.importers import convert_content, recognise
from atrous.importers.files import Content, read
from atrous.importers.start import start_backbone
from atrous.models import empty_model

BACKBONE = "backbone."


@dataclass
class Taken:
    """What a network took from a file.

    taken, new: names of its weights. others: the first class that is another one, (number, there, here). differs:
    options of the backbone that are not the file's, (there, here).
    """

    path: str
    source: str
    normalization: Normalization
    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    others: tuple[int, str, str] | None = None
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        of_backbone = sum(name.startswith(BACKBONE) for name in self.taken)
        line = (
            f"starts from {self.path} ({self.source}): {len(self.taken)} of {len(self.taken) + len(self.new)} weights, "
            f"{of_backbone} of the backbone"
        )
        if self.new:
            line += f"; new: {', '.join(self.new[:3])}{', ...' if len(self.new) > 3 else ''}"
        if self.others is not None:
            number, there, here = self.others
            line += f"; a new classifier, as class {number} is {there!r} there and {here!r} here"
        for option, (theirs, own) in self.differs.items():
            line += f"; they were trained with {option}={theirs!r}, this backbone has {own!r}"
        return line


def initialise(
    network: Any, path: str | Path, pictures: Callable[[], Tensor], labels: Labels | None = None
) -> Taken:
    """Give a network of `create_model` the weights of `path` that fit by name and shape.

    path: a checkpoint of this package, "box", or a file or folder of any source of `import_checkpoint`. pictures:
    called for (N, 3, H, W) uint8 pictures of the training set, where batch norms that are folded away have to be
    estimated. labels: what the network is to tell apart; where the file's are others, the classifier stays new.

    Raises InputError where the file cannot be read, or its backbone is another one.
    """
    file = locate(path)
    if is_own(file):
        own = load(file)
        metadata = metadata_of(own)
        result = Taken(str(file), "atrous", metadata.normalization, others=_others(metadata.labels, labels))
        return _take(network, result, own.state_dict(), own.config)
    if not Path(path).is_dir():  # a folder of another project is read with its config.json
        path = file
    content = read(path)
    source, content = recognise(content)
    converted = convert_content(content, source)
    result = Taken(str(path), source, converted.normalization, others=_others(converted.labels, labels))
    if content.kind == "tflite":
        before = {name: value.clone() for name, value in network.state_dict().items()}
        result.normalization = start_backbone(network, path, pictures())
        if result.others is not None:
            network.load_state_dict({name: before[name] for name in classifier(network)}, strict=False)
        after = network.state_dict()
        names = [name for name in after if not name.endswith("num_batches_tracked")]
        result.taken = [name for name in names if not after[name].equal(before[name])]
        result.new = [name for name in names if name not in result.taken]
        return result
    return _take(network, result, converted.renamed.weights, converted.config)


def _others(theirs: Labels | None, ours: Labels | None) -> tuple[int, str, str] | None:
    """The first class of as many that is another one, if any: its number, and its name there and here."""
    if theirs is None or ours is None or len(theirs) != len(ours):
        return None
    index = first_difference(theirs.names, ours.names)
    return None if index is None else (index, theirs.names[index], ours.names[index])


def classifier(network: Any) -> set[str]:
    """Names of the weights whose shape is another where there is a class more."""
    config = network.config
    with torch.device("meta"):
        wider = empty_model(replace(config, num_classes=config.num_classes + 1)).state_dict()
    return {name for name, value in network.state_dict().items() if value.shape != wider[name].shape}


def is_own(path: Path) -> bool:
    """Whether a file is a checkpoint that this package wrote."""
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    content: Content = read(path)
    return "atrous" in content.extras


def _take(network: Any, result: Taken, weights: dict[str, Tensor], config: Any) -> Taken:
    own = network.state_dict()
    if result.others is not None:
        weights = {name: weights[name] for name in weights.keys() - classifier(network)}
    first = next(f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first in weights and own[first].ndim == 4:
        weights = weights | {first: adapt_input(weights[first], own[first].shape[1])}
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    result.taken = [name for name in counted if name in fits]
    result.new = [name for name in counted if name not in fits]
    missing = [name for name in result.new if name.startswith(BACKBONE)]
    if missing:
        theirs = f"{tuple(weights[missing[0]].shape)} there" if missing[0] in weights else "not there"
        raise InputError(
            f"{result.path}: starts a {config.backbone}, this network has {network.config.backbone}: "
            f"{len(missing)} of its weights do not fit, first {missing[0]} {tuple(own[missing[0]].shape)} ({theirs}); "
            "give another --init, or null"
        )
    network.load_state_dict(fits, strict=False)
    ours = network.config.options
    for option in ("padding", "eps", "pad_input", "dilate_from", "stride_on_first_1x1", "ceil_mode"):
        if config.options.get(option) != ours.get(option):
            result.differs[option] = (
                config.options.get(option, "its default"),
                ours.get(option, "its default"),
            )
    return result
