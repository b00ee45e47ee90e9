"""One file: safetensors weights, and in its header all that belongs to them.

The header carries the model's config, class names and colours, normalisation, evaluation protocol, the scores
that were measured and the recipe, so `predict` needs nothing else.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from atrous.config import ModelConfig, Normalization, Protocol, from_dict, to_dict
from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.models import Model, build_model

FORMAT = "1"


@dataclass
class Metadata:
    """What a checkpoint says besides its weights; `atrous.load` puts it on the model as `model.metadata`."""

    labels: Labels
    normalization: Normalization = field(default_factory=Normalization)
    protocol: Protocol = field(default_factory=Protocol)
    scores: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def save(model: nn.Module, path: str | Path, metadata: Metadata | None = None) -> None:
    """Write a model of `create_model` to one safetensors file, beside and renamed: never half a file.

    `metadata` defaults to what the model was loaded with, or to classes named by their number.
    """
    path = Path(path)
    header = header_of(config_of(model), metadata_of(model) if metadata is None else metadata, str(path))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(weights, beside, {"atrous": json.dumps(header)})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def header_of(config: ModelConfig, metadata: Metadata, where: str) -> dict[str, Any]:
    """All that a file says besides its weights, as plain JSON values; `parse_header` reads it."""
    labels = metadata.labels
    if len(labels) != config.num_classes:
        raise InputError(f"{where}: the model has {config.num_classes} classes, its labels {len(labels)}")
    return {
        "format": FORMAT,
        "model": to_dict(config),
        "labels": {"names": labels.names, "palette": labels.palette, "ignore_index": labels.ignore_index},
        "normalization": to_dict(metadata.normalization),
        "protocol": to_dict(metadata.protocol),
        "scores": metadata.scores,
        "recipe": metadata.recipe,
    }


def load(path: str | Path) -> Model:
    """Rebuild the model of a checkpoint, in eval mode on the CPU, with its `metadata`.

    InputError where the file is missing, truncated, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("atrous")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    if header is None:
        raise InputError(
            f"{path}: safetensors, but not a checkpoint that atrous wrote (it has no header of ours)"
        )
    try:
        config, metadata = parse_header(json.loads(header), str(path))
        model = build_model(config)
        model.load_state_dict(weights)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: header and weights do not fit together ({str(error).strip()})") from None
    model.metadata = metadata  # type: ignore[assignment]
    return model.eval()


def config_of(model: nn.Module) -> ModelConfig:
    """What `create_model` was asked for; InputError for a module that it did not build."""
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(f"{type(model).__name__} is no model of atrous.create_model or atrous.load")
    return config


def metadata_of(model: nn.Module) -> Metadata:
    """The metadata a model was loaded with; plain class numbers where it has none."""
    found = getattr(model, "metadata", None)
    if isinstance(found, Metadata):
        return found
    return Metadata(Labels.named([f"class_{i}" for i in range(config_of(model).num_classes)]))


def parse_header(header: dict[str, Any], where: str) -> tuple[ModelConfig, Metadata]:
    """The way back from `header_of`. InputError for another format; KeyError, TypeError or ValueError for nonsense."""
    if header["format"] != FORMAT:
        raise InputError(
            f"{where}: written in checkpoint format {header['format']}; this atrous reads {FORMAT}"
        )
    labels = header["labels"]
    palette = tuple((r, g, b) for r, g, b in labels["palette"])
    return from_dict(ModelConfig, header["model"], where), Metadata(
        labels=Labels(tuple(labels["names"]), palette, labels["ignore_index"]),
        normalization=from_dict(Normalization, header["normalization"], where),
        protocol=from_dict(Protocol, header["protocol"], where),
        scores=header["scores"],
        recipe=header["recipe"],
    )
