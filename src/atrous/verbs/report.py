"""`atrous report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.data_as_trained import add_data_arguments, as_trained, recipe_of
from atrous.verbs.parser import Parser, add_protocol_arguments, make_predictor


def arguments(words: Sequence[str]) -> Parser:
    """one HTML page about a run or checkpoint, or two: scores, charts, confusions, best and worst pictures"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN [RUN] [DATA]",
        help="run folder or checkpoint, or two to compare; then the data, if not that of the run's recipe",
    )
    parser.add_argument(
        "--out", help="the file (default: report.html in the run, NAME_report.html beside a checkpoint)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    add_data_arguments(parser, "to measure on")
    parser.add_argument("--limit", type=int, help="measure on the first pictures alone")
    add_protocol_arguments(parser)
    return parser


def run(given: Namespace) -> None:
    from atrous import terminal
    from atrous.evaluation import among
    from atrous.report.measure import measure
    from atrous.report.page import page, write_page
    from atrous.report.source import is_source, open_source

    *others, last = given.sources
    words, data = (given.sources, None) if is_source(last) else (others, last)
    if not words or len(words) > 2:
        raise InputError("which models? give a run folder or checkpoint, or two, and then the data")
    sources = [open_source(word) for word in words]
    target = Path(given.out) if given.out else default_target(words)
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {target}: wanted the name of a file that ends in .html")
    if target.exists() and not given.overwrite:
        raise InputError(f"{target}: exists already; give another --out, or --overwrite")
    terminal.check_writable(target.parent)

    recipe = sources[0].recipe or recipe_of(sources[0].checkpoint)
    where = data or recipe.get("data")
    if where is None:
        raise InputError(f"which data? {words[0]} names none: atrous report {' '.join(words)} DATA")
    if data is None and where != "scenes" and not Path(where).is_dir():
        raise InputError(
            f"{words[0]} was trained on {where}, which is not there: if it moved, "
            f"atrous report {' '.join(words)} DATA"
        )
    opening = as_trained(recipe, where, given.split, given.format, given.data_options)
    dataset = opening.open()
    if opening.note:
        terminal.say(opening.note)
    parts = []
    for source in sources:
        if source.unfinished:
            terminal.say(source.unfinished)
        given.checkpoint = source.checkpoint
        predictor = make_predictor(given, among(given.limit, len(dataset)))
        terminal.say(
            f"{source.name} on {where} ({opening.split}, {len(dataset)} pictures): {predictor.protocol}"
        )
        with terminal.Bar("measure") as bar:
            show = lambda done, of, miou, bar=bar: bar.show(done, of, f"mIoU {miou:.4f}")  # noqa: E731
            parts.append((source, measure(predictor, dataset, given.limit, show)))
        terminal.say(f"mIoU {parts[-1][1].metrics.miou:.4f}")
    about = (
        f"{where}, {opening.split}, {parts[0][1].metrics.pictures} pictures, {len(dataset.labels)} classes"
    )
    write_page(target, page(parts, dataset.labels, about))
    terminal.say(f"report {target} ({target.stat().st_size / 1e6:.1f} MB)")


def default_target(words: Sequence[str]) -> Path:
    """Where the report of these goes: two of them, and the model that the package brings, to the current folder."""
    first = Path(words[0])
    if len(words) == 2:
        return Path("report.html")
    if first.is_dir():
        return first / "report.html"
    return first.with_name(f"{first.stem}_report.html")
