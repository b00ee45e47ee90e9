"""`atrous pull`."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from atrous.verbs.importing import write_imported
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """download a published checkpoint by name, and import it"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        help="as torchvision/deeplabv3_resnet101 or huggingface/OWNER/NAME; none: what there is",
    )
    parser.add_argument("--out", help="file to write (default: NAME.safetensors here)")
    parser.add_argument("--allow_missing", choices=("head",), help="for a backbone alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that exists")
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.importers import zoo

    if given.name is None:
        terminal.say("\n".join(zoo.names()))
        return
    with terminal.Bar("download") as bar:
        path = zoo.pull(given.name, lambda done, of: bar.show(done >> 20, max(of, done) >> 20, "MB"))
    out = given.out or f"{given.name.split('/')[-1]}.safetensors"
    write_imported(path, out, given.overwrite, {"allow_missing": given.allow_missing})
