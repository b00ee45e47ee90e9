"""What all verbs share: the parser that says one line, and the flags of the protocol."""

from __future__ import annotations

import difflib
import re
import sys
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from atrous.errors import InputError
from atrous.protocols import PRESETS
from atrous.verbs.spelling import as_parsed, misfit

# of jsonargparse's messages; of those for a union, the last value is that of the whole
WRONG_VALUE = re.compile(r'Parser key "(?P<key>[^"]+)".*(?:Got|Given) value: (?P<value>.*)', re.DOTALL)
NESTED = re.compile(r"NestedArg\(key='(.*?)', val='?(.*?)'?\)")


class Parser(ArgumentParser):
    """One line for a bad command line, with the nearest flag, in place of the whole usage.

    A flag is written out: the words are looked through for --recipe before they are parsed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, allow_abbrev=False, **options)

    @property
    def flag_types(self) -> dict[str, Any]:
        """What each flag takes, of those that take more than a word."""
        hints = ((a.option_strings, getattr(a, "_typehint", None)) for a in self._actions)
        return {flag: hint for flags, hint in hints if hint is not None for flag in flags}

    def parse_args(self, args: Sequence[str], *others: Any, **options: Any) -> Namespace:  # type: ignore[override]
        return super().parse_args(as_parsed(args, self.flag_types), *others, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        for word in re.findall(r"--\w+", message) if message.startswith("unrecognized") else ():
            near = difflib.get_close_matches(
                word, [flag for a in self._actions for flag in a.option_strings], n=1
            )
            message += f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"
        if found := WRONG_VALUE.match(message):
            flag, value = f"--{found['key']}", NESTED.sub(r"{\1: \2}", found["value"])
            message = misfit(flag, value, self.flag_types[flag]) if flag in self.flag_types else message
        sys.exit(complain(" ".join(message.split())))


def complain(message: str) -> int:
    print(f"atrous: error: {message}", file=sys.stderr)
    return 2


def add_protocol_arguments(parser: Parser, crf: bool = True) -> None:
    """The flags that `make_predictor` reads; `crf`: those of the CRF too."""
    group = parser.add_argument_group("protocol (default: what the checkpoint says)")
    group.add_argument(
        "--protocol", choices=tuple(PRESETS), help="as a paper evaluates; other flags win over it"
    )
    group.add_argument("--mode", choices=("direct", "resize", "slide"), help="own size, squashed, or windows")
    group.add_argument("--size", type=tuple[int, ...], help="side, or height and width, of resize and slide")
    group.add_argument("--overlap", type=float, help="share of a window that the next one covers too")
    group.add_argument(
        "--longer_side", type=int, help="bring the longer side to this many pixels first; 0: no"
    )
    group.add_argument(
        "--output_stride", type=int, help="the same weights at another stride, rates following"
    )
    group.add_argument("--scales", type=tuple[float, ...], help="average over these scales of the picture")
    yes_no(group, "flip", "average with the mirrored picture")
    group.add_argument("--average", choices=("probabilities", "logits"), help="what is averaged")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    group.add_argument(
        "--runtime",
        choices=("auto", "eager", "torch", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the network; auto: on a CPU the fastest here, converted to once where the pictures are many",
    )
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network")
    if crf:
        yes_no(group, "crf", "refine with the dense CRF of v1 and v2")
        group.add_argument(
            "--crf_options", type=dict[str, float], help="its parameters, as bi_w, bi_xy_std, bi_rgb_std"
        )


def add_style_arguments(parser: Parser) -> None:
    """The flags that `make_style` reads."""
    group = parser.add_argument_group("the picture for people")
    group.add_argument(
        "--view",
        choices=("overlay", "mask", "side-by-side", "outline"),
        default="overlay",
        help="colours over the photo, alone, beside it, or borders only; the file is called by it",
    )
    group.add_argument(
        "--palette",
        choices=("safe", "data"),
        default="safe",
        help="colours that also people with red-green blindness tell apart, or the data set's own",
    )
    group.add_argument("--no_names", action="store_true", help="do not write the classes on the regions")
    group.add_argument("--no_legend", action="store_true", help="do not add classes and shares below")


def make_style(given: Namespace) -> Any:
    from atrous.visualize import Style

    return Style(given.view, given.palette, not given.no_names, not given.no_legend)


def yes_no(group: Any, name: str, help: str) -> None:
    """--NAME and --no_NAME; None where neither is given."""
    group.add_argument(f"--{name}", type=bool | None, metavar="", help=f"{help}; --no_{name}: do not")
    group.add_argument(f"--no_{name}", dest=f"no_{name}", action="store_true", default=None, help=SUPPRESS)


def chosen(given: Namespace, name: str) -> bool | None:
    """What `yes_no` asked for. InputError where both were given."""
    yes, no = given.get(name), given.get(f"no_{name}")
    if yes and no:
        raise InputError(f"--{name} and --no_{name}: give one of them")
    return False if no else yes


def make_predictor(given: Namespace, pictures: int | None = None) -> Any:
    """pictures: how many there are; None: many."""
    from atrous import processes, terminal
    from atrous.predict import Predictor

    size = given.size and (given.size[0], given.size[-1])
    if given.size and len(given.size) > 2:
        raise InputError("--size takes one side, or height and width")
    if given.get("crf_options") and chosen(given, "crf") is False:
        raise InputError("--crf_options and --no_crf: give one of them")
    predictor = Predictor(
        given.checkpoint,
        given.mode,
        size,
        given.longer_side,
        given.scales,
        chosen(given, "flip"),
        given.get("crf_options") or chosen(given, "crf"),
        processes.device(given.device),
        protocol=given.protocol,
        overlap=given.overlap,
        average=given.average,
        output_stride=given.output_stride,
        runtime=given.runtime,
        precision=given.precision,
        pictures=pictures,
    )
    if predictor.choice.new and processes.rank() == 0:
        terminal.say(str(predictor.choice))
    return predictor
