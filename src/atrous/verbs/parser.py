"""What all verbs share: the parser that says one line, and the flags of the protocol."""

from __future__ import annotations

import difflib
import re
import sys
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from atrous.errors import InputError


class Parser(ArgumentParser):
    """One line for a bad command line, with the nearest flag, in place of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        for word in re.findall(r"--\w+", message) if message.startswith("unrecognized") else ():
            near = difflib.get_close_matches(
                word, [flag for a in self._actions for flag in a.option_strings], n=1
            )
            message += f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"
        sys.exit(complain(" ".join(message.split())))


def complain(message: str) -> int:
    print(f"atrous: error: {message}", file=sys.stderr)
    return 2


def add_protocol_arguments(parser: Parser, crf: bool = True) -> None:
    """The flags that `make_predictor` reads; `crf`: those of the CRF too."""
    group = parser.add_argument_group("protocol (default: what the checkpoint says)")
    group.add_argument("--mode", choices=("direct", "resize", "slide"), help="own size, squashed, or windows")
    group.add_argument("--size", type=int, nargs="+", help="side, or height and width, of resize and slide")
    group.add_argument("--longer_side", type=int, help="bring the longer side to this many pixels first")
    group.add_argument("--scales", type=float, nargs="+", help="average over these scales of the picture")
    group.add_argument("--flip", action="store_true", default=None, help="average with the mirrored picture")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    group.add_argument(
        "--runtime",
        choices=("auto", "eager", "torch", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the network; a named one is converted to once and kept, and auto takes it from then on",
    )
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network")
    if crf:
        group.add_argument("--crf", action="store_true", help="refine with the dense CRF of v1 and v2")
        group.add_argument(
            "--crf_options", type=dict[str, float], help="its parameters, as bi_w, bi_xy_std, bi_rgb_std"
        )


def make_predictor(given: Namespace) -> Any:
    from atrous.predict import Predictor

    size = given.size and (given.size[0], given.size[-1])
    if given.size and len(given.size) > 2:
        raise InputError("--size takes one side, or height and width")
    crf = given.get("crf_options") or ({} if given.get("crf") else None)
    return Predictor(
        given.checkpoint,
        given.mode,
        size,
        given.longer_side,
        given.scales,
        given.flip,
        crf,
        given.device,
        runtime=given.runtime,
        precision=given.precision,
    )
