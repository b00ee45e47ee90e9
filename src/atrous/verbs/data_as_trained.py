"""The data that a checkpoint is measured on, opened as its recipe opened it: what was val there, is val here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.data import SegmentationDataset

LENGTH = "length"  # of the drawn scenes: how many are to be learnt from, not what they are


@dataclass(frozen=True)
class Opening:
    """What `open_dataset` is called with. note: what of it the recipe says and nobody gave; "" for nothing."""

    path: str
    format: str
    options: dict[str, Any]
    split: str = "val"  # to measure on
    train_split: str = "train"
    note: str = ""

    def open(self, split: str | None = None) -> SegmentationDataset:
        from atrous.data import open_dataset

        return open_dataset(self.path, split or self.split, self.format, **self.options)


def add_data_arguments(parser: Any, purpose: str, format: str = "--format") -> None:
    """The flags of `as_trained`: --split, `format`, --data_options; None where they are not given."""
    recipes = "default: the recipe's, where the data is of its format"
    parser.add_argument("--split", help=f"part of the data {purpose} ({recipes}, or val)")
    parser.add_argument(format, help="layout of the folder (default: found out)")
    parser.add_argument(
        "--data_options",
        type=dict[str, Any] | None,
        help="further options of the layout, which win one by one over the recipe's",
    )


def recipe_of(checkpoint: str) -> dict[str, Any]:
    """The recipe in a checkpoint or an exported file; empty where it has none."""
    from atrous.runtimes import read_metadata

    return read_metadata(checkpoint).recipe


def as_trained(
    recipe: Mapping[str, Any],
    path: str,
    split: str | None = None,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Opening:
    """Splits and options are the recipe's where the data is of the recipe's format; what is given wins, key by key."""
    from atrous.data import find_format, options_of

    given = dict(options or {})
    if format is None or format == "auto":
        format = find_format(path)
    theirs = {key: value for key, value in (recipe.get("data_options") or {}).items() if key != LENGTH}
    if format != format_of(recipe) or not set(theirs) <= set(options_of(format)):
        return Opening(path, format, given, split or "val")
    val = recipe.get("val_split") or "val"
    taken = [f"--split {val}"] if split is None and val != "val" else []
    taken += [f"--data_options.{key} {_word(value)}" for key, value in theirs.items() if key not in given]
    note = f"as the checkpoint's recipe opened its data: {' '.join(taken)}" if taken else ""
    return Opening(path, format, theirs | given, split or val, recipe.get("train_split") or "train", note)


def _word(value: Any) -> str:
    """The value of a flag as a shell takes it."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def format_of(recipe: Mapping[str, Any]) -> str | None:
    """Of the recipe's data; None where it says "auto" and the data is no longer there."""
    from atrous.data import find_format

    if recipe.get("format", "auto") != "auto":
        return str(recipe["format"])
    with suppress(InputError):
        return find_format(recipe.get("data") or "")
    return None
