"""One file: safetensors weights, and in its header all that belongs to them.

The header carries the model's config, class names and colours, normalisation, evaluation protocol, the scores
that were measured and the recipe, so `predict` needs nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.config import ModelConfig, Normalization, Protocol, from_dict, to_dict
from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.models import Model, empty_model
from atrous.replacing import replacing
from atrous.repository import WEIGHTS, bring, has_weights, is_repository

FORMAT = "1"
FOREIGN = "; a checkpoint of another project is brought here by `atrous import FILE`"
STORED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPILED = "_orig_mod."  # torch.compile puts it before the names of what is inside
BOX = "box"  # names the model that the package brings, wherever a checkpoint is asked for
BOX_FILE = Path(__file__).parent / "box" / "model.safetensors"
OF_A_RUN = ("best.safetensors", "last.safetensors")  # the first that is there


@dataclass
class Metadata:
    """What a checkpoint says besides its weights; `atrous.load` puts it on the model as `model.metadata`."""

    labels: Labels
    normalization: Normalization = field(default_factory=Normalization)
    protocol: Protocol = field(default_factory=Protocol)
    scores: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def save(
    model: nn.Module, path: str | Path, metadata: Metadata | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a model of `create_model` to one safetensors file, beside and renamed: never half a file.

    `metadata` defaults to what the model was loaded with, or to classes named by their number. `dtype`: what the
    weights are stored in, float16, bfloat16, float32 or float64 of torch; `load` gives float32 again. What
    `torch.compile` returned is saved as the model inside.

    InputError, and no file, where the weights are not those of the model's config, so that `load` could not rebuild it
    (a layer was replaced, or pruned), and for another dtype, or one too small for a weight.
    """
    path = Path(path)
    header = header_of(config_of(model), metadata_of(model) if metadata is None else metadata, str(path))
    weights = {
        name.replace(COMPILED, ""): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    _check_rebuilt(weights, config_of(model), path)
    if dtype is not None:
        weights = {name: _stored(name, weight, dtype) for name, weight in weights.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        save_file(weights, beside, {"atrous": json.dumps(header)})
        beside.chmod(mode)  # safetensors writes for the owner alone


def _check_rebuilt(weights: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    """InputError for the first weight that the model of this config does not have, or has in another shape."""
    with torch.device("meta"):  # names and shapes alone
        expected = _shapes(empty_model(config).state_dict())
    found = _shapes(weights)
    for name in expected | found:
        here, there = found.get(name, "not there"), expected.get(name, "not there")
        if here != there:
            raise InputError(
                f"{path}: not written, it could not be loaded: {name} is {here} in this model, and {there} in the "
                f"{config.name} that its config describes. Build changed layers with create_model (num_classes=...), "
                "make pruning permanent, or keep this model with torch.save"
            )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: str(tuple(tensor.shape)) for name, tensor in weights.items()}


def _stored(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight as the file holds it; what counts batches stays a whole number."""
    if dtype not in STORED:
        kinds = ", ".join(str(kind) for kind in STORED)
        raise InputError(f"weights cannot be saved as {dtype}: choose from {kinds}")
    if not weight.is_floating_point():
        return weight
    stored = weight.to(dtype)
    if bool((stored.isinf() & ~weight.isinf()).any()):
        raise InputError(
            f"{name} has values too large for {dtype}: choose another dtype, such as torch.bfloat16"
        )
    return stored


def locate(path: str | Path) -> Path:
    """The file of a checkpoint: a path, a folder with model.safetensors, the folder of a run, "box" for the model that
    the package brings, or hub:OWNER/NAME.
    """
    if is_repository(path):
        return bring(path)
    if has_weights(path):
        return Path(path) / WEIGHTS
    if (of_run := best_of_run(path)) is not None:
        return of_run
    return BOX_FILE if str(path) == BOX and not Path(BOX).is_file() else Path(path)


def best_of_run(folder: str | Path) -> Path | None:
    """The best checkpoint in the folder of a run, or the last where none was measured; None for anything else."""
    return next((path for name in OF_A_RUN if (path := Path(folder) / name).is_file()), None)


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint's file; of an OpenVINO model, that of the weights in the .bin beside it too."""
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
    stats = [(file, file.stat()) for file in files]
    return "-".join(_digest(file, about.st_size, about.st_mtime_ns) for file, about in stats)


@functools.lru_cache(8)
def _digest(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(checkpoint: str | Path) -> Path:
    """The path whose name and folder the results of a checkpoint take: its own, inside the folder of a run; here for
    those of the hub.
    """
    if is_repository(checkpoint):
        return Path(str(checkpoint).rpartition("/")[2].partition("@")[0])
    return best_of_run(checkpoint) or Path(checkpoint)


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


def load(path: str | Path = BOX) -> Model:
    """Rebuild the model of a checkpoint, in eval mode on the CPU, with its `metadata`.

    path: a file, the folder of a run (its best), a folder of `atrous.hub.save_pretrained`, "box": the model that the
    package brings (background and eleven classes of VOC 2012), or "hub:OWNER/NAME": one of the Hugging Face hub.
    InputError where the file is missing, truncated, or no checkpoint of this package.
    """
    path = locate(path)
    with _opened(path) as file:
        config, metadata = _about(path, file)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with _fitting(path):
        model = empty_model(config)
        model.load_state_dict(weights)
    model.metadata = metadata  # type: ignore[assignment]
    return model.eval()


def read_metadata(path: str | Path = BOX) -> Metadata:
    """What `load` puts on the model, without reading the weights. InputError as there."""
    path = locate(path)
    with _opened(path) as file:
        return _about(path, file)[1]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.is_dir():
        raise InputError(f"{path}: this folder has no {', '.join(OF_A_RUN)} or {WEIGHTS}")
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        safetensors = path.suffix == ".safetensors"
        found = (
            f"not a readable safetensors file ({error})" if safetensors else "no checkpoint that atrous wrote"
        )
        raise InputError(f"{path}: {found}{FOREIGN}") from None


def _about(path: Path, file: Any) -> tuple[ModelConfig, Metadata]:
    header = (file.metadata() or {}).get("atrous")
    if header is None:
        raise InputError(
            f"{path}: safetensors, but not a checkpoint that atrous wrote (it has no header of ours){FOREIGN}"
        )
    with _fitting(path):
        return parse_header(json.loads(header), str(path))


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: header and weights do not fit together ({str(error).strip()})") from None


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
