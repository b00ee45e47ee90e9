"""`atrous evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from atrous.verbs.parser import Parser, add_protocol_arguments, make_predictor


def arguments(words: Sequence[str]) -> Parser:
    """measure a checkpoint on a data set: per-class table, mIoU and accuracies"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train`, `import` or `export` wrote")
    parser.add_argument("data", help='folder of the data set, or "scenes"')
    parser.add_argument("--split", default="val", help="part of the data to measure on")
    parser.add_argument("--format", default="auto", help="layout of the folder")
    parser.add_argument(
        "--data_options", type=dict[str, Any], default={}, help="further options of the layout"
    )
    parser.add_argument("--limit", type=int, help="measure on the first pictures alone")
    parser.add_argument("--json", help="file for the scores (default: beside the checkpoint)")
    add_protocol_arguments(parser)
    return parser


def run(given: Namespace) -> None:
    from atrous import evaluation, terminal
    from atrous.data import open_dataset

    predictor = make_predictor(given)
    data = open_dataset(given.data, split=given.split, format=given.format, **given.data_options)
    checkpoint = Path(given.checkpoint)
    terminal.say(f"{checkpoint} on {given.data} ({given.split}, {len(data)} pictures): {predictor.protocol}")
    with terminal.Bar("evaluate") as bar:
        metrics = evaluation.evaluate(
            predictor, data, given.limit, lambda done, of, miou: bar.show(done, of, f"mIoU {miou:.4f}")
        )
    terminal.say(evaluation.table(metrics))
    terminal.say(evaluation.summary(metrics))
    if warning := evaluation.collapsed(metrics):
        terminal.say(f"warning: {warning}")
    path = Path(given.json) if given.json else checkpoint.with_name(f"{checkpoint.stem}_{given.split}.json")
    evaluation.write_json(
        path, metrics, predictor, checkpoint=str(checkpoint), data=given.data, split=given.split
    )
    terminal.say(f"scores {path}")
