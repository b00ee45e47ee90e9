"""Checkpoints on the Hugging Face hub, or in a folder that is laid out like a repository of it.

model.safetensors   the checkpoint, as `atrous.save` writes it: all that `from_pretrained` needs
config.json         what its header says, for people and other programs
README.md           the model card, filled from the checkpoint
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from torch import nn

from atrous.checkpoint import Metadata, config_of, header_of, load, metadata_of, save
from atrous.errors import InputError
from atrous.models import MODELS, Model
from atrous.replacing import write_text
from atrous.repository import HUB, WEIGHTS, bring, send
from atrous.version import __version__

CONFIG, CARD = "config.json", "README.md"


def from_pretrained(name: str | Path, revision: str | None = None, token: str | None = None) -> Model:
    """The model of a repository, "OWNER/NAME", or of a folder that `save_pretrained` wrote; in eval mode on the CPU.

    revision: a branch, tag or commit. token: where the one of `hf auth login` or HF_TOKEN is not meant. A folder of
    that name wins over the hub. Without a network what the hub's cache has is used.

    Raises InputError where there is no such repository or file, no permission, no network, or the file is no
    checkpoint of this package (`atrous import` and `atrous pull huggingface/OWNER/NAME` read those of others).
    """
    folder = Path(name)
    if folder.is_dir():
        return load(folder)
    return load(bring(name, WEIGHTS, revision, token))


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    metadata: Metadata | None = None,
    *,
    name: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model of `create_model` as a folder like a repository: weights, config.json and a model card.

    Of the recipe's absolute paths only the last part is kept: what is published says nothing of a machine's folders.

    metadata: as in `atrous.save`. name: the card's title, the folder's by default; OWNER/NAME where it goes there.
    license: an identifier of the hub, such as "apache-2.0" or "mit"; without one the card names none.

    Raises InputError where one of the files exists already, unless `overwrite`.
    """
    folder = Path(folder)
    metadata = metadata_of(model) if metadata is None else metadata
    metadata = dataclasses.replace(metadata, recipe=_without_folders(metadata.recipe))
    there = [folder / file for file in (WEIGHTS, CONFIG, CARD) if (folder / file).exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]}: exists already; give another folder, or overwrite=True")
    header = header_of(config_of(model), metadata, str(folder))
    save(model, folder / WEIGHTS, metadata)
    write_text(folder / CONFIG, json.dumps({"library_name": "atrous", **header}, indent=2) + "\n")
    write_text(folder / CARD, card(model, metadata, name or folder.resolve().name, license))


def push_to_hub(
    model: nn.Module,
    name: str,
    metadata: Metadata | None = None,
    *,
    private: bool | None = None,
    license: str | None = None,
    token: str | None = None,
    message: str = "Weights and model card",
) -> str:
    """`save_pretrained` into the repository OWNER/NAME, made where there is none. Returns the commit's address.

    What is in the repository under the same file names is replaced there by a new commit. Raises InputError where you
    are not logged in or may not write to it, and without a network.
    """
    title = name.removeprefix(HUB)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, metadata, name=title, license=license)
        return send(Path(folder), title, message, private, token)


def card(
    model: nn.Module,
    metadata: Metadata | None = None,
    name: str = "model",
    license: str | None = None,
) -> str:
    """The model card: YAML that the hub reads (with the scores as a model-index), then what a person wants to know.

    name: of the model, or of its repository, OWNER/NAME, which the example then loads from.
    """
    config = config_of(model)
    metadata = metadata_of(model) if metadata is None else metadata
    parameters = sum(weights.numel() for weights in model.parameters()) / 1e6
    names, scores = metadata.labels.names, metadata.scores
    data = str(_without_folders(metadata.recipe).get("data") or "unknown")
    front: dict[str, Any] = {
        "library_name": "atrous",
        "pipeline_tag": "image-segmentation",
        "tags": ["atrous", "pytorch", "semantic-segmentation", config.name, config.backbone],
    }
    if license:
        front["license"] = license
    if "miou" in scores:
        front["model-index"] = [_result(name.split("/")[-1], scores, data)]
    where = f"{HUB}{name}" if "/" in name else WEIGHTS
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {name.split('/')[-1]}\n",
        f"{_paper(config.name)} on {config.backbone}, output stride {config.output_stride}: "
        f"{parameters:.2f} M parameters, {len(names)} classes.\n",
        "```python\nimport atrous\n",
        f'result = atrous.Predictor("{where}").predict("photo.jpg")',
        "print(result.labels.shape, result.names)   # (H, W) class of each pixel\n```\n",
        f"How pictures are shown to it: {metadata.protocol}.\n",
        *_table_of(scores, names),
    ]
    if metadata.recipe:
        recipe = _without_folders({key: value for key, value in metadata.recipe.items() if key != "out"})
        lines += ["## Training\n", f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```\n"]
    lines.append(f"Written by atrous {__version__}.\n")
    return "\n".join(lines)


def _paper(name: str) -> str:
    """The first line of the docstring of the model's file: its name and that of its paper."""
    page = sys.modules[MODELS[name].model.__module__].__doc__ or name
    return page.strip().splitlines()[0].rstrip(".")


def _result(title: str, scores: dict[str, Any], data: str) -> dict[str, Any]:
    """One entry of a model-index, as the hub's model cards have them."""
    kinds = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    metrics = [
        {"type": kind, "name": words, "value": round(scores[kind], 4)}
        for kind, words in kinds.items()
        if kind in scores
    ]
    dataset = {"type": data.lower().replace(" ", "-"), "name": data, "split": scores.get("split", "val")}
    return {
        "name": title,
        "results": [{"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}],
    }


def _table_of(scores: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    if "miou" not in scores:
        return ["## Classes\n", ", ".join(names) + "\n"]
    measured = f"{scores.get('pictures', '?')} pictures, split {scores.get('split', 'val')}"
    ious = scores.get("per_class_iou", {})
    rows = [f"| {name} | {'absent' if ious.get(name) is None else f'{ious[name]:.3f}'} |" for name in names]
    accuracy = f", pixel accuracy {scores['pixel_accuracy']:.3f}" if "pixel_accuracy" in scores else ""
    return [
        "## Scores\n",
        f"Mean IoU {scores['miou']:.3f}{accuracy} ({measured}).\n",
        "\n".join(["| class | IoU |", "|---|---:|", *rows]) + "\n",
    ]


def _without_folders(value: Any) -> Any:
    """Absolute paths, wherever they are in a recipe, become their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and (
        PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    ):
        return PureWindowsPath(value).name
    return value
