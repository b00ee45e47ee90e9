"""`atrous predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser, add_protocol_arguments, make_predictor


def arguments(words: Sequence[str]) -> Parser:
    """segment pictures: a palette PNG of class indices and an overlay for each"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train`, `import` or `export` wrote")
    parser.add_argument("pictures", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--out", default="predictions", help="folder for the results")
    parser.add_argument("--probabilities", action="store_true", help="write (C, H, W) float32 .npy files too")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    add_protocol_arguments(parser)
    return parser


def run(given: Namespace) -> None:
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
