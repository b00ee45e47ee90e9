"""`atrous app`."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """a page in the browser to try models on pictures; the same as an HTTP API"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="files that `atrous train`, `import` or `export` wrote, or folders of runs (default: the model that the "
        "package brings)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: whoever reaches this machine"
    )
    parser.add_argument("--port", type=int, default=7860, help="to listen at")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--max_megabytes", type=float, default=20, help="refuse larger uploads")
    parser.add_argument(
        "--max_pixels", type=int, default=50_000_000, help="refuse larger pictures, before they are decoded"
    )
    parser.add_argument("--side", type=int, default=1024, help="shrink longer pictures to this many pixels")
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.app.offline import import_gradio

    import_gradio()
    from atrous.app.serving import serve
    from atrous.app.work import Limits, Models
    from atrous.data.pictures import allow_pixels

    for flag in ("max_megabytes", "max_pixels", "side"):
        if given[flag] <= 0:
            raise InputError(f"--{flag} {given[flag]}: wanted a number above 0")
    allow_pixels(given.max_pixels)
    limits = Limits(given.max_megabytes, given.max_pixels, given.side)
    models = Models(given.checkpoints or ["box"], given.device)
    with serve(models, limits, given.host, given.port) as address:
        terminal.say(f"{address}   (Ctrl-C ends it)")
        address.wait()
