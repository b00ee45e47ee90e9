"""`atrous evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.data_as_trained import add_data_arguments, as_trained, recipe_of
from atrous.verbs.parser import Parser, add_protocol_arguments, make_predictor


def arguments(words: Sequence[str]) -> Parser:
    """measure a checkpoint on a data set: per-class table, mIoU and accuracies"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "checkpoint", help="file that `atrous train`, `import` or `export` wrote, or folder of a run"
    )
    parser.add_argument("data", help='folder of the data set, or "scenes"')
    add_data_arguments(parser, "to measure on")
    parser.add_argument("--limit", type=int, help="measure on the first pictures alone")
    parser.add_argument("--json", help="file for the scores (default: beside the checkpoint)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace scores that were measured otherwise"
    )
    parser.add_argument("--batch_size", type=int, default=1, help="pictures of one size at a time")
    parser.add_argument(
        "--trimap",
        type=tuple[int, ...],
        default=(),
        help="mIoU near true boundaries too: within so many pixels, as 1,5,10,20,40",
    )
    parser.add_argument(
        "--boundary_iou",
        type=float,
        nargs="?",
        const=0.02,
        help="Boundary IoU too, within this share of the diagonal (0.02)",
    )
    add_protocol_arguments(parser)
    return parser


def run(given: Namespace) -> None:
    from atrous import evaluation, processes, terminal
    from atrous.checkpoint import beside, digest, locate
    from atrous.config import to_dict

    if given.batch_size < 1:
        raise InputError(f"--batch_size {given.batch_size} must be at least 1")
    if min(given.trimap, default=1) < 1:
        raise InputError(f"--trimap {min(given.trimap)}: wanted widths in pixels, as 1,5,10,20,40")
    opening = as_trained(
        recipe_of(given.checkpoint), given.data, given.split, given.format, given.data_options
    )
    data = opening.open()
    pictures = evaluation.among(given.limit, len(data))
    predictor = make_predictor(given, pictures)
    measured = {
        "sha256": digest(locate(given.checkpoint)),
        "data": given.data,
        "data_options": opening.options,
        "split": opening.split,
        "pictures": pictures,
        "protocol": to_dict(predictor.protocol),
        "precision": given.precision,
    }
    near = beside(given.checkpoint)
    path = Path(given.json) if given.json else near.with_name(f"{near.stem}_{opening.split}.json")
    if not given.overwrite:
        evaluation.check_replaceable(path, measured)
    terminal.check_writable(path.parent)
    first = processes.rank() == 0
    if first:
        if opening.note:
            terminal.say(opening.note)
        terminal.say(
            f"{given.checkpoint} on {given.data} ({opening.split}, {len(data)} pictures): {predictor.protocol}"
        )
    with processes.together(), terminal.Bar("evaluate") as bar:
        metrics = evaluation.evaluate(
            predictor,
            data,
            given.limit,
            (lambda done, of, miou: bar.show(done, of, f"mIoU {miou:.4f}")) if first else None,
            shard=(processes.rank(), processes.count()),
            batch_size=given.batch_size,
            trimap=given.trimap,
            boundary_share=given.boundary_iou,
            add_up=processes.add_up,
        )
    if not first:
        return
    terminal.say(evaluation.table(metrics))
    terminal.say(evaluation.summary(metrics))
    if warning := evaluation.collapsed(metrics):
        terminal.say(f"warning: {warning}")
    evaluation.write_json(path, metrics, {"checkpoint": str(given.checkpoint), **measured})
    terminal.say(f"scores {path}")
