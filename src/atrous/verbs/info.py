"""`atrous info`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """parts, rates, receptive field, parameters and multiply-adds of a model or checkpoint"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("model", help="name of a model, or a checkpoint")
    parser.add_argument("--backbone", help="default: the paper's")
    parser.add_argument("--num_classes", type=int, default=21)
    parser.add_argument("--output_stride", type=int, help="default: the paper's")
    parser.add_argument("--in_channels", type=int, default=3)
    parser.add_argument("--model_options", type=dict[str, Any], default={}, help="the paper's own options")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[513], help="side, or height and width, in pixels"
    )
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load, locate
    from atrous.info import describe, table
    from atrous.models import create_model

    path = locate(given.model)
    if path.is_file():
        model = load(path)
    else:
        model = create_model(
            given.model,
            backbone=given.backbone,
            num_classes=given.num_classes,
            output_stride=given.output_stride,
            in_channels=given.in_channels,
            **given.model_options,
        )
    terminal.say(table(describe(model, (given.size[0], given.size[-1]))))
