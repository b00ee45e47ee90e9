"""`atrous data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """look at a data set before training: `atrous data check DIR`"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "action", choices=("check",), help="check: scan every file, print what is there and wrong"
    )
    parser.add_argument("data", help="folder of the data set")
    parser.add_argument("--format", default="auto", help="layout of the folder")
    parser.add_argument(
        "--data_options", type=dict[str, Any], default={}, help="further options of the layout"
    )
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.data.check import check_dataset

    with terminal.Bar("check") as bar:
        report = check_dataset(
            given.data,
            format=given.format,
            progress=lambda done, of: bar.show(done, of),
            **given.data_options,
        )
    terminal.say(report.render())
    if report.problems:
        raise InputError(f"{given.data}: {len(report.problems)} problems would break training")
