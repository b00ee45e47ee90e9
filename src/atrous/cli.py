"""The `atrous` command: parse, call, print. Each verb imports what it needs when it runs, so `--help` is instant."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from atrous.allocator import keep_freed_memory
from atrous.errors import InputError
from atrous.verbs import (
    app,
    benchmark,
    crf,
    data,
    evaluate,
    export,
    importing,
    info,
    predict,
    pull,
    report,
    train,
)
from atrous.verbs.parser import Parser, complain
from atrous.version import __version__

DESCRIPTION = "The DeepLab family for semantic segmentation: v1 with dense CRF, v2, PSPNet, v3, v3+."
EPILOG = "`atrous VERB --help` says what a verb takes."

VERBS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "crf": crf,
    "import": importing,
    "pull": pull,
    "export": export,
    "app": app,
    "benchmark": benchmark,
    "info": info,
    "data": data,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Exit 0: done; 2: something given cannot be used, said in one line; 130: stopped by Ctrl-C."""
    words = [flag_spelling(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        parser = Parser(prog="atrous", description=DESCRIPTION, version=__version__, epilog=EPILOG)
        verbs = parser.add_subcommands(dest="verb", metavar="VERB", required=True)
        for verb, module in VERBS.items():
            verbs.add_subcommand(verb, module.arguments(words), help=module.arguments.__doc__)
        if not words:
            parser.print_help(sys.stderr)
            sys.exit(2)
        given = parser.parse_args(words)
        keep_freed_memory()
        import_torch()
        VERBS[given.verb].run(given[given.verb])
    except InputError as error:
        sys.exit(complain(str(error)))
    except OSError as error:
        sys.exit(complain(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def import_torch() -> None:
    """For every verb, and without a look for garbage among the million objects that it makes, now and at the end."""
    if "torch" in sys.modules:
        return
    gc.disable()
    importlib.import_module("torch")
    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)


def flag_spelling(word: str) -> str:
    """--crop-size is --crop_size."""
    flag, equals, value = word.partition("=")
    return flag.replace("-", "_").replace("__", "--", 1) + equals + value if flag.startswith("--") else word
