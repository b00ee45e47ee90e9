"""Start a training from any checkpoint that can be read here: the whole model where it fits, otherwise its backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from atrous.backbones.weights import adapt_input
from atrous.checkpoint import load, locate, metadata_of
from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers import convert_content, recognise
from atrous.importers.files import Content, read
from atrous.importers.start import start_backbone

BACKBONE = "backbone."


@dataclass
class Taken:
    """What a network took from a file.

    taken, new: names of its weights. differs: options of the backbone that are not the file's, (there, here).
    """

    path: str
    source: str
    normalization: Normalization
    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        of_backbone = sum(name.startswith(BACKBONE) for name in self.taken)
        line = (
            f"starts from {self.path} ({self.source}): {len(self.taken)} of {len(self.taken) + len(self.new)} weights, "
            f"{of_backbone} of the backbone"
        )
        if self.new:
            line += f"; new: {', '.join(self.new[:3])}{', ...' if len(self.new) > 3 else ''}"
        for option, (theirs, own) in self.differs.items():
            line += f"; they were trained with {option}={theirs!r}, this backbone has {own!r}"
        return line


def initialise(network: Any, path: str | Path, pictures: Callable[[], Tensor]) -> Taken:
    """Give a network of `create_model` the weights of `path` that fit by name and shape.

    path: a checkpoint of this package, "box", or a file or folder of any source of `import_checkpoint`. pictures:
    called for (N, 3, H, W) uint8 pictures of the training set, where batch norms that are folded away have to be
    estimated.

    Raises InputError where the file cannot be read, or its backbone is another one.
    """
    path = locate(path)
    if is_own(path):
        own = load(path)
        return _take(
            network, str(path), "atrous", own.state_dict(), own.config, metadata_of(own).normalization
        )
    content = read(path)
    source = recognise(content)
    if content.kind == "tflite":
        before = {name: value.clone() for name, value in network.state_dict().items()}
        normalization = start_backbone(network, path, pictures())
        after = network.state_dict()
        names = [name for name in after if not name.endswith("num_batches_tracked")]
        taken = [name for name in names if not after[name].equal(before[name])]
        return Taken(str(path), source, normalization, taken, [name for name in names if name not in taken])
    converted = convert_content(content, source)
    return _take(
        network, str(path), source, converted.renamed.weights, converted.config, converted.normalization
    )


def is_own(path: Path) -> bool:
    """Whether a file is a checkpoint that this package wrote."""
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    content: Content = read(path)
    return "atrous" in content.extras


def _take(
    network: Any,
    path: str,
    source: str,
    weights: dict[str, Tensor],
    config: Any,
    normalization: Normalization,
) -> Taken:
    own = network.state_dict()
    first = next(f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first in weights and own[first].ndim == 4:
        weights = weights | {first: adapt_input(weights[first], own[first].shape[1])}
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    result = Taken(path, source, normalization)
    result.taken = [name for name in counted if name in fits]
    result.new = [name for name in counted if name not in fits]
    missing = [name for name in result.new if name.startswith(BACKBONE)]
    if missing:
        theirs = f"{tuple(weights[missing[0]].shape)} there" if missing[0] in weights else "not there"
        raise InputError(
            f"{path}: starts a {config.backbone}, this network has {network.config.backbone}: {len(missing)} of its "
            f"weights do not fit, first {missing[0]} {tuple(own[missing[0]].shape)} ({theirs}); "
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
