"""The `atrous` command: parse, call, print. Each verb imports what it needs when it runs, so `--help` is instant."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from atrous.config import Recipe, read_recipe, to_dict
from atrous.errors import InputError
from atrous.version import __version__

DESCRIPTION = "The DeepLab family for semantic segmentation: v1 with dense CRF, v2, PSPNet, v3, v3+."
EPILOG = "`atrous VERB --help` says what a verb takes."


class Parser(ArgumentParser):
    """One line for a bad command line, with the nearest flag, in place of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        for word in re.findall(r"--\w+", message) if message.startswith("unrecognized") else ():
            near = difflib.get_close_matches(
                word, [flag for a in self._actions for flag in a.option_strings], n=1
            )
            message += f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"
        sys.exit(complain(" ".join(message.split())))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Exit 0: done; 2: something given cannot be used, said in one line; 130: stopped by Ctrl-C."""
    words = [flag_spelling(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        parser = Parser(prog="atrous", description=DESCRIPTION, version=__version__, epilog=EPILOG)
        verbs = parser.add_subcommands(dest="verb", metavar="VERB", required=True)
        for verb, (describe, _) in VERBS.items():
            verbs.add_subcommand(verb, describe(words), help=describe.__doc__)
        given = parser.parse_args(words)
        VERBS[given.verb][1](given[given.verb])
    except InputError as error:
        sys.exit(complain(str(error)))
    except OSError as error:
        sys.exit(complain(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def complain(message: str) -> int:
    print(f"atrous: error: {message}", file=sys.stderr)
    return 2


def flag_spelling(word: str) -> str:
    """--crop-size is --crop_size."""
    flag, equals, value = word.partition("=")
    return flag.replace("-", "_").replace("__", "--", 1) + equals + value if flag.startswith("--") else word


# train ------------------------------------------------------------------------------------------------------


def train_arguments(words: Sequence[str]) -> Parser:
    """train a model on a folder of pictures and masks, or on the built-in scenes"""
    parser = Parser(description=train_arguments.__doc__)
    parser.add_argument("data", nargs="?", help='folder of the data set, or "scenes", the built-in drawn one')
    parser.add_argument("--recipe", help="YAML file of settings; flags win over it")
    parser.add_argument("--print_config", nargs="?", const="", help="print the settings in full and stop")
    parser.add_class_arguments(Recipe, skip={"data"})
    after = [*words[1:], ""]
    for word, following in zip(words, after, strict=True):
        flag, equals, value = word.partition("=")
        if flag == "--recipe":
            recipe = to_dict(read_recipe(value if equals else following))
            parser.set_defaults({key: value for key, value in recipe.items() if value is not None})
    return parser


def train(given: Namespace) -> None:
    values = {key: value for key, value in vars(given).items() if key not in ("recipe", "print_config")}
    recipe = Recipe(**values)
    if recipe.data is None:
        raise InputError('which data? give a folder, or "scenes" for the built-in drawn data set')
    if given.print_config is not None:
        import yaml

        print(yaml.safe_dump(to_dict(recipe.resolved()), sort_keys=False), end="")
        return
    import logging

    from atrous import terminal
    from atrous.train import train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what we say in one line
    terminal.check_writable(recipe.out)
    with terminal.TrainingDisplay() as display:
        run = train(recipe, display)
    terminal.say(f"best mIoU {run.best_miou:.4f}   checkpoint {run.folder / 'best.safetensors'}")


# evaluate and predict ---------------------------------------------------------------------------------------


def evaluate_arguments(words: Sequence[str]) -> Parser:
    """measure a checkpoint on a data set: per-class table, mIoU and accuracies"""
    parser = Parser(description=evaluate_arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train` wrote")
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


def evaluate(given: Namespace) -> None:
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
    path = Path(given.json) if given.json else checkpoint.with_name(f"{checkpoint.stem}_{given.split}.json")
    evaluation.write_json(
        path, metrics, predictor, checkpoint=str(checkpoint), data=given.data, split=given.split
    )
    terminal.say(f"scores {path}")


def predict_arguments(words: Sequence[str]) -> Parser:
    """segment pictures: a palette PNG of class indices and an overlay for each"""
    parser = Parser(description=predict_arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train` wrote")
    parser.add_argument("pictures", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--out", default="predictions", help="folder for the results")
    parser.add_argument("--probabilities", action="store_true", help="write (C, H, W) float32 .npy files too")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    add_protocol_arguments(parser)
    return parser


def predict(given: Namespace) -> None:
    from atrous import terminal
    from atrous.data.pictures import read_image
    from atrous.predict import find_pictures, write_segmentation

    pictures = find_pictures(given.pictures)
    predictor = make_predictor(given)
    folder, broken = Path(given.out), []
    terminal.check_writable(folder)
    with terminal.Bar("predict") as bar:
        for done, (name, path) in enumerate(pictures.items(), start=1):
            try:
                image = read_image(path)
                result = predictor.predict(image, given.probabilities)
                write_segmentation(result, image, folder, name, given.overwrite)
            except InputError as error:
                broken.append(str(error))
            bar.show(done, len(pictures), path.name)
    terminal.say(
        f"{len(pictures) - len(broken)} of {len(pictures)} pictures -> {folder} ({predictor.protocol})"
    )
    if broken:
        raise InputError("\natrous: error: ".join(broken))


def crf_arguments(words: Sequence[str]) -> Parser:
    """refine scores or a label map of any origin with the dense CRF of v1 and v2"""
    parser = Parser(description=crf_arguments.__doc__)
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


def crf(given: Namespace) -> None:
    from atrous import terminal
    from atrous.predict import make_crf, refine_file, write_segmentation

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


def add_protocol_arguments(parser: Parser) -> None:
    group = parser.add_argument_group("protocol (default: what the checkpoint says)")
    group.add_argument("--mode", choices=("direct", "resize", "slide"), help="own size, squashed, or windows")
    group.add_argument("--size", type=int, nargs="+", help="side, or height and width, of resize and slide")
    group.add_argument("--longer_side", type=int, help="bring the longer side to this many pixels first")
    group.add_argument("--scales", type=float, nargs="+", help="average over these scales of the picture")
    group.add_argument("--flip", action="store_true", default=None, help="average with the mirrored picture")
    group.add_argument("--crf", action="store_true", help="refine with the dense CRF of v1 and v2")
    group.add_argument(
        "--crf_options", type=dict[str, float], help="its parameters, as bi_w, bi_xy_std, bi_rgb_std"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def make_predictor(given: Namespace) -> Any:
    from atrous.predict import Predictor

    size = given.size and (given.size[0], given.size[-1])
    if given.size and len(given.size) > 2:
        raise InputError("--size takes one side, or height and width")
    crf = given.crf_options or ({} if given.crf else None)
    return Predictor(
        given.checkpoint, given.mode, size, given.longer_side, given.scales, given.flip, crf, given.device
    )


# info and data ----------------------------------------------------------------------------------------------


def info_arguments(words: Sequence[str]) -> Parser:
    """parts, rates, receptive field, parameters and multiply-adds of a model or checkpoint"""
    parser = Parser(description=info_arguments.__doc__)
    parser.add_argument("model", help="name of a model, or a checkpoint")
    parser.add_argument("--backbone", help="default: the paper's")
    parser.add_argument("--num_classes", type=int, default=21)
    parser.add_argument("--output_stride", type=int, help="default: the paper's")
    parser.add_argument("--in_channels", type=int, default=3)
    parser.add_argument("--model_options", type=dict[str, Any], default={}, help="the paper's own options")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[513], help="side, or height and width, in pixels"
    )
    return parser


def info(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load
    from atrous.info import describe, table
    from atrous.models import create_model

    if Path(given.model).is_file():
        model = load(given.model)
    else:
        model = create_model(
            given.model,
            backbone=given.backbone,
            num_classes=given.num_classes,
            output_stride=given.output_stride,
            in_channels=given.in_channels,
            **given.model_options,
        )
    terminal.say(table(describe(model, (given.size[0], given.size[-1]))))


def data_arguments(words: Sequence[str]) -> Parser:
    """look at a data set before training: `atrous data check DIR`"""
    parser = Parser(description=data_arguments.__doc__)
    parser.add_argument(
        "action", choices=("check",), help="check: scan every file, print what is there and wrong"
    )
    parser.add_argument("data", help="folder of the data set")
    parser.add_argument("--format", default="auto", help="layout of the folder")
    parser.add_argument(
        "--data_options", type=dict[str, Any], default={}, help="further options of the layout"
    )
    return parser


def data(given: Namespace) -> None:
    from atrous import terminal
    from atrous.data.check import check_dataset

    with terminal.Bar("check") as bar:
        report = check_dataset(
            given.data,
            format=given.format,
            progress=lambda done, of: bar.show(done, of),
            **given.data_options,
        )
    terminal.say(report.render())
    if report.problems:
        raise InputError(f"{given.data}: {len(report.problems)} problems would break training")


VERBS: dict[str, tuple[Callable[[Sequence[str]], Parser], Callable[[Namespace], None]]] = {
    "train": (train_arguments, train),
    "evaluate": (evaluate_arguments, evaluate),
    "predict": (predict_arguments, predict),
    "crf": (crf_arguments, crf),
    "info": (info_arguments, info),
    "data": (data_arguments, data),
}
