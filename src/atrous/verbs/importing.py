"""`atrous import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """turn another project's DeepLab checkpoint into ours, with an account of where every weight went"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "file", help="file or folder of weights: torch, safetensors, TensorFlow, TFLite, Caffe, Paddle"
    )
    parser.add_argument("--source", help="project it is from (default: recognised)")
    parser.add_argument("--weights", help="which of several sets of weights in the file, such as model_ema")
    parser.add_argument(
        "--out",
        help="file to write (default: NAME.safetensors here; NAME_atrous.safetensors where that is FILE)",
    )
    parser.add_argument("--output_stride", type=int, help="default: the project's own")
    parser.add_argument("--num_classes", type=int, help="another number gives the last layer new weights")
    parser.add_argument(
        "--classes",
        type=list[str] | str,
        help="names of the classes, like '[road, car]', or a file: one a line, or a colour map",
    )
    parser.add_argument("--allow_missing", choices=("head",), help="accept a file of the backbone alone")
    parser.add_argument("--options", type=dict[str, Any], default={}, help="further options of the source")
    parser.add_argument("--names", action="store_true", help="list every weight in the report")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that exists")
    return parser


def run(given: Namespace) -> None:
    options = dict(given.options)
    if given.output_stride is not None:
        options["output_stride"] = given.output_stride
    options |= {
        "source": given.source,
        "weights": given.weights,
        "num_classes": given.num_classes,
        "allow_missing": given.allow_missing,
        "classes": given.classes,
    }
    write_imported(Path(given.file), given.out, given.overwrite, options, 10**6 if given.names else 4)


def write_imported(
    path: Path, out: str | None, overwrite: bool, options: dict[str, Any], shown: int = 4
) -> None:
    """Import `path`, say where every weight went, and write the checkpoint."""
    from atrous import terminal
    from atrous.checkpoint import save
    from atrous.importers import import_checkpoint

    target = Path(out or f"{path.stem}.safetensors")
    if target.resolve() == path.resolve():
        if out:
            raise InputError(f"{target}: is the file to import, which is kept; give another --out")
        target = Path(f"{path.stem}_atrous.safetensors")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; give another --out, or --overwrite")
    terminal.check_writable(target.parent)
    model = import_checkpoint(path, **options)
    save(model, target)
    report: Any = model.report
    print(report.render(shown))  # names are not to be wrapped
    if report.swapped or report.missing:
        new = [*report.swapped, *(name for name, _ in report.missing)]
        some = ", ".join(new[:3]) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
        terminal.say(f"warning: {some} have new, random weights: train before use")
    terminal.say(f"checkpoint {target}")
