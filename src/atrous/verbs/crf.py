"""`atrous crf` and `atrous crf search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.data_as_trained import add_data_arguments, as_trained, recipe_of
from atrous.verbs.parser import Parser, add_protocol_arguments, make_predictor


def arguments(words: Sequence[str]) -> Parser:
    """refine scores or a label map of any origin with the dense CRF of v1 and v2; `crf search` finds its parameters"""
    if list(words[:2]) == ["crf", "search"]:
        return search_arguments()
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("picture", help="the picture that was segmented")
    parser.add_argument("scores", help=".npy of probabilities (C, H, W), or an index PNG of labels")
    parser.add_argument("--out", default="refined", help="folder for the results")
    parser.add_argument(
        "--confidence", type=float, default=0.7, help="how far a label map is believed, 0 to 1"
    )
    parser.add_argument(
        "--crf_options", type=dict[str, float], default={}, help="as bi_w, bi_xy_std, bi_rgb_std"
    )
    parser.add_argument("--probabilities", action="store_true", help="write (C, H, W) float32 .npy too")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    return parser


def search_arguments() -> Parser:
    """search the CRF's parameters for a checkpoint, coarse then fine, as the papers do; the best go into it"""
    parser = Parser(description=search_arguments.__doc__)
    parser.add_argument("action", choices=("search",))
    parser.add_argument(
        "checkpoint", help="file that `atrous train` or `atrous import` wrote, or folder of a run"
    )
    parser.add_argument("data", help='folder of the data set, or "scenes"')
    parser.add_argument("--pictures", type=int, default=100, help="how many of its pictures")
    add_data_arguments(parser, "to search on")
    parser.add_argument("--iterations", type=int, default=10, help="of the mean field")
    parser.add_argument(
        "--cache", help="folder of probabilities and results (default: beside the checkpoint)"
    )
    parser.add_argument("--out", help="write here instead of into the checkpoint")
    add_protocol_arguments(parser, crf=False)
    return parser


def run(given: Namespace) -> None:
    if "action" in given:
        search(given)
        return
    from atrous import terminal
    from atrous.predict import make_crf, refine_file
    from atrous.results import write_segmentation

    terminal.check_writable(given.out)
    image, result = refine_file(
        Path(given.picture),
        Path(given.scores),
        make_crf(given.crf_options),
        given.confidence,
        given.probabilities,
    )
    files = write_segmentation(result, image, Path(given.out), Path(given.picture).stem, given.overwrite)
    terminal.say("\n".join(map(str, files)))


def search(given: Namespace) -> None:
    from atrous import terminal, tuning
    from atrous.checkpoint import beside, locate

    source, near = locate(given.checkpoint), beside(given.checkpoint)
    if source != near and not given.out:
        raise InputError(
            f"{given.checkpoint}: is not written into; say with --out where the best parameters go"
        )
    target = Path(given.out or source)
    folder = Path(given.cache or near.with_name(f"{near.stem}_crf_search"))
    terminal.check_writable(target.parent)
    terminal.check_writable(folder)
    opening = as_trained(recipe_of(str(source)), given.data, given.split, given.format, given.data_options)
    data = opening.open()
    if opening.note:
        terminal.say(opening.note)
    predictor = make_predictor(given, min(given.pictures, len(data)))
    with terminal.Bar("probabilities") as bar:
        found = tuning.search_crf(
            predictor,
            data,
            folder,
            given.pictures,
            given.iterations,
            tuning.weights_digest(source),
            bar.stage,
        )
    terminal.say(found.table())
    if found.best_miou <= found.plain:
        terminal.say(
            f"no CRF is better than none here (mIoU {found.plain:.4f}); {given.checkpoint} stays as it is"
        )
        return
    about = {"data": str(given.data), "split": opening.split, "pictures": min(given.pictures, len(data))}
    tuning.write_best(source, target, found, given.iterations, about)
    chosen = " ".join(f"{name}={value:g}" for name, value in found.best.items())
    terminal.say(f"mIoU {found.plain:.4f} -> {found.best_miou:.4f} with {chosen}")
    terminal.say(
        f"{target}: predicts with it from now on; measure on pictures that were not searched on ({folder} can go)"
    )
