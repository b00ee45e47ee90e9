"""`atrous data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """look at a data set before training, or make one: `atrous data check DIR`, `atrous data convert SOURCE OUT`"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "action",
        choices=("check", "convert"),
        help="check: scan every file, print what is there and wrong; "
        "convert: make images/ and masks/ of COCO, LabelMe or CVAT annotations",
    )
    parser.add_argument("data", help="folder of the data set; for convert, the annotations")
    parser.add_argument("out", nargs="?", help="convert: the folder to write, which must be new")
    checked = parser.add_argument_group("check")
    checked.add_argument("--format", default="auto", help="layout of the folder")
    checked.add_argument(
        "--data_options", type=dict[str, Any], default={}, help="further options of the layout"
    )
    converted = parser.add_argument_group("convert")
    converted.add_argument("--images", help="folder of the pictures, if not beside the annotations")
    converted.add_argument("--link", action="store_true", help="link to the pictures instead of copying them")
    converted.add_argument(
        "--skip_broken", action="store_true", help="leave out what is damaged or missing, and list it"
    )
    return parser


def run(given: Namespace) -> None:
    if given.action == "convert":
        run_convert(given)
        return
    if given.out is not None:
        raise InputError(f"data check takes one folder; what is {given.out}?")
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
    if not report.ok:
        count = len(report.problems)
        raise InputError(f"{given.data}: {count} problem{'s'[: count > 1]} would break training")


def run_convert(given: Namespace) -> None:
    if given.out is None:
        raise InputError("where to? atrous data convert SOURCE OUT")

    from atrous import terminal
    from atrous.data.convert import convert

    with terminal.Bar("convert") as bar:
        done = convert(
            given.data,
            given.out,
            images=given.images,
            link=given.link,
            skip_broken=given.skip_broken,
            progress=lambda done, of: bar.show(done, of),
        )
    ids = {name: f" (id {number})" for name, number in done.ids.items()}
    classes = ", ".join(f"{number} {name}{ids.get(name, '')}" for name, number in done.classes.items())
    terminal.say(f"{done.tool}: {done.pictures} pictures with masks in {given.out}")
    terminal.say(f"classes: {classes}; ignored: {', '.join([*done.ignored, str(done.void)])}")
    for kind, count in done.left_out.items():
        terminal.say(f"left out, as they have no area: {count} {kind}")
    for line in done.problems:
        terminal.say(f"left out: {line}")
    terminal.say(f"next: atrous data check {given.out}")
