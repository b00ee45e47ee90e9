"""`atrous info`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.replacing import replacing
from atrous.verbs.parser import Parser

OF_A_NAME = ("backbone", "num_classes", "in_channels", "model_options")
OF_THE_FIELD = ("data", "out", "overwrite", "limit")
PICTURES = 8


def arguments(words: Sequence[str]) -> Parser:
    """parts, rates, receptive field, parameters and multiply-adds of a model or checkpoint"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("model", help="name of a model, or a checkpoint, or folder of a run")
    parser.add_argument("--output_stride", type=int, help="default: the paper's, or the checkpoint's")
    parser.add_argument(
        "--size", type=tuple[int, ...], default=(513,), help="side, or height and width, in pixels"
    )
    parser.add_argument(
        "--receptive_field",
        action="store_true",
        help="the theoretical field and, by gradients, the effective one, as numbers and a picture",
    )
    group = parser.add_argument_group("with the name of a model (a checkpoint says these itself)")
    group.add_argument("--backbone", help="default: the paper's")
    group.add_argument("--num_classes", type=int, help="default: 21")
    group.add_argument("--in_channels", type=int, help="default: 3")
    group.add_argument("--model_options", type=dict[str, Any] | None, help="the paper's own options")
    group = parser.add_argument_group("with --receptive_field")
    group.add_argument("--data", help="picture, folder or glob to average over (default: drawn scenes)")
    group.add_argument("--limit", type=int, help=f"how many pictures of it (default: {PICTURES})")
    group.add_argument("--out", help="the picture, .png or .jpg (default: MODEL_receptive_field.png)")
    group.add_argument("--overwrite", action="store_true", help="replace a picture that exists")
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load, locate
    from atrous.info import describe, table
    from atrous.models import at_output_stride, create_model

    for flag in OF_THE_FIELD:
        if given[flag] and not given.receptive_field:
            raise InputError(f"--{flag} goes with --receptive_field")
    target = _target(given) if given.receptive_field else None
    path = locate(given.model)
    if path.is_file():
        for flag in OF_A_NAME:
            if given[flag] is not None:
                raise InputError(f"--{flag} goes with the name of a model; {given.model} says that itself")
        model = load(path)
        if given.output_stride is not None:
            model = at_output_stride(model, given.output_stride)
    else:
        model = create_model(
            given.model,
            backbone=given.backbone,
            num_classes=21 if given.num_classes is None else given.num_classes,
            output_stride=given.output_stride,
            in_channels=3 if given.in_channels is None else given.in_channels,
            **(given.model_options or {}),
        )
    if target is None:
        terminal.say(table(describe(model, (given.size[0], given.size[-1]))))
    else:
        _receptive_field(given, model, path.is_file(), target)


def _target(given: Namespace) -> Path:
    """The file that the picture goes to; InputError where it cannot."""
    from atrous import terminal
    from atrous.checkpoint import beside

    name = beside(given.model)
    target = Path(given.out) if given.out else name.with_name(f"{name.stem}_receptive_field.png")
    if target.is_dir() or target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--out {target}: wanted the name of a file that ends in .png or .jpg")
    if target.exists() and not given.overwrite:
        raise InputError(f"{target}: exists already; give another --out, or --overwrite")
    terminal.check_writable(target.parent)
    return target


def _receptive_field(given: Namespace, model: Any, is_trained: bool, target: Path) -> None:
    from PIL import Image

    from atrous import terminal
    from atrous.checkpoint import metadata_of
    from atrous.data.scenes import open_scenes
    from atrous.heat_map import STRIP, field_map
    from atrous.receptive import measure, newly_initialised, normalised, read_pictures, table
    from atrous.visualize import panel

    limit = PICTURES if given.limit is None else given.limit
    size = given.size[0], given.size[-1]
    if limit < 1 or min(size) < 1:
        raise InputError("--limit and --size must be at least 1")
    if model.config.in_channels != 3:
        raise InputError(
            f"{given.model} takes pictures of {model.config.in_channels} channels; "
            "--receptive_field shows it colour pictures"
        )
    if given.data:
        photos = read_pictures([given.data], size, limit)
    else:
        scenes = open_scenes(split="test", size=size, length=limit)
        photos = [scenes.image(index) for index in range(limit)]
    pictures = normalised(photos, metadata_of(model).normalization)
    networks = {"random": newly_initialised(model.config, pictures)}
    if is_trained:
        networks["trained"] = model
    fields = []
    for weights, network in networks.items():
        with terminal.Bar(weights) as bar:
            fields.extend(measure(network, pictures, weights, bar.show))
    name = f"{model.config.name} {model.config.backbone}"
    about = f"{len(photos)} picture{'s'[: len(photos) > 1]} of {size[0]}x{size[1]}, {given.data or 'drawn scenes'}"
    terminal.say(table(fields, name, about))
    height = min(400, max(300, size[0]))
    full = [field for field in fields if field.pools == fields[0].pools]
    maps = [field_map(f.gradient, f.centre, f.deepest, f.effective, height, f.pools) for f in full]
    titles = [f"{f.weights}: {f.effective} px" for f in full]
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        Image.fromarray(panel([maps], titles, height=height + STRIP)).save(beside)
    terminal.say(f"picture {target}")
