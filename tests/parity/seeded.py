"""Weights that anyone can draw again, so that a small table of another project's logits can stand for its code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from atrous.models import build_model

TABLES = Path(__file__).parent / "tables"


def draw_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Draw weights for every name, each from its own generator: the same on any machine, in any order.

    Convolutions as in He et al., batch norms with statistics and scales of their own, so that neither a swapped
    tensor nor a forgotten one goes unseen, and deep networks neither fade nor explode.
    """
    return {name: _draw(name, tuple(shape)) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    rng = np.random.default_rng(crc32(name.encode()))
    if len(shape) >= 2:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("weight"):
        values = rng.uniform(0.5, 1.0, shape)
    else:  # bias, running_mean
        values = rng.standard_normal(shape) * 0.2
    return torch.from_numpy(np.asarray(values, np.float32))


def draw_into(model: nn.Module) -> nn.Module:
    """Give a model drawn weights, in eval mode."""
    state = model.state_dict()
    model.load_state_dict(draw_weights({name: tuple(value.shape) for name, value in state.items()}))
    return model.eval()


def draw_picture(height: int, width: int, channels: int = 3) -> Tensor:
    """A normalised picture, (1, channels, H, W), about -2..2."""
    rng = np.random.default_rng(height * 10_000 + width)
    return torch.from_numpy(rng.standard_normal((1, channels, height, width)).astype(np.float32))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two logits, over the spread of theirs where that is more than 1.

    Logits so flat that a wrong model would pass are an error.
    """
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)}, not {tuple(theirs.shape)}"
    spread = float(theirs.std())
    assert spread > 0.05, f"logits that vary by {spread:.2g} say nothing about 1e-4"
    return float((ours - theirs).abs().max()) / max(1.0, spread)


def write_table(
    name: str, model: nn.Module, sizes: list[tuple[int, int]], step: int = 16, **notes: Any
) -> None:
    """Keep what `model`, with drawn weights, says of drawn pictures: every `step`-th pixel, and its weights' shapes.

    Run by hand, where the other project's code is. notes: kept too, for instance its commit.
    """
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    draw_into(model)
    logits = {}
    with torch.inference_mode():
        for height, width in sizes:
            found = model(draw_picture(height, width))
            found = found["out"] if isinstance(found, dict) else found
            logits[f"{height}x{width}"] = found[..., ::step, ::step].numpy()
    TABLES.mkdir(exist_ok=True)
    header = json.dumps({"shapes": shapes, "step": step, **notes})
    np.savez_compressed(TABLES / f"{name}.npz", header=np.array(header), **logits)


Shapes = Mapping[str, tuple[int, ...]]


def read_table(
    name: str, draw: Callable[[Shapes], dict[str, Tensor]] = draw_weights
) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]], int]:
    """Return (the drawn weights in their names, [(picture, logits at every step-th pixel)], step).

    draw: {name: shape} -> weights, for a project whose weights are not laid out as torch's.
    """
    with np.load(TABLES / f"{name}.npz") as file:
        header = json.loads(str(file["header"]))
        pairs = [
            (draw_picture(*map(int, size.split("x"))), torch.from_numpy(file[size]))
            for size in file.files
            if size != "header"
        ]
    shapes = {key: tuple(shape) for key, shape in header["shapes"].items()}
    return draw(shapes), pairs, header["step"]


def table_difference(name: str, on_grid: bool = False, **options: Any) -> float:
    """The largest difference between a kept table and our model, imported from the same drawn weights.

    on_grid: the table has the logits of `scores`, before the resize to the picture's size. options: of
    `atrous.import_checkpoint`, for instance source and output_stride.
    """
    from atrous.importers import import_checkpoint

    weights, pairs, step = read_table(name)
    return largest_difference(import_checkpoint(weights, **options), pairs, step, on_grid)


def largest_difference(
    model: Any, pairs: list[tuple[Tensor, Tensor]], step: int, on_grid: bool = False
) -> float:
    """The largest difference between our model and a table's `pairs`, of which every `step`-th pixel was kept."""
    with torch.inference_mode():
        return max(difference(_logits(model, x, on_grid)[..., ::step, ::step], logits) for x, logits in pairs)


def with_options(model: Any, **options: Any) -> Any:
    """The same weights in a model with other options: what a wrong import would be."""
    config = replace(model.config, options=model.config.options | options)
    other = build_model(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def _logits(model: Any, x: Tensor, on_grid: bool) -> Tensor:
    logits: Tensor = model.scores(x)["out"] if on_grid else model(x)
    return logits


def live(
    name: str, theirs: nn.Module, sizes: list[tuple[int, int]], on_grid: bool = False, **options: Any
) -> None:
    """Print the differences of another project's model and ours, imported from its drawn weights. Run by hand.

    on_grid: its logits are those of `scores`. options: of `atrous.import_checkpoint`.
    """
    from atrous.importers import import_checkpoint

    ours = import_checkpoint(draw_into(theirs).state_dict(), **options)
    with torch.inference_mode():
        for size in sizes:
            x = draw_picture(*size)
            print(
                f"{name} {size[0]}x{size[1]}: {difference(_logits(ours, x, on_grid), theirs(x)):.2g}",
                flush=True,
            )
