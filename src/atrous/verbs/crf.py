"""`atrous crf`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """refine scores or a label map of any origin with the dense CRF of v1 and v2"""
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


def run(given: Namespace) -> None:
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
