"""`atrous predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.repository import is_repository
from atrous.verbs.parser import (
    Parser,
    add_protocol_arguments,
    add_style_arguments,
    make_predictor,
    make_style,
)

OURS = ".safetensors .onnx .xml .pt2".split()
THEIRS = ".pth .pt .ckpt .tar .bin .tflite .pb .caffemodel .pdparams".split()  # said to be imported first
MAX_PIXELS = 178_956_970  # Pillow's own limit, against files that unpack to more than memory holds
SHOWN = 20  # broken pictures; all of them are in predictions.jsonl


def arguments(words: Sequence[str]) -> Parser:
    """segment pictures: a palette PNG of class indices and an overlay for each; or a video"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="[CHECKPOINT] PICTURE",
        help="file that `atrous train`, `import` or `export` wrote, folder of a run, or hub:OWNER/NAME (without one: "
        "the model that the package brings); then pictures, folders, globs, lists of files (.txt), or a video",
    )
    parser.add_argument("--out", help="folder for the results, or file of the video (default: predictions)")
    parser.add_argument("--probabilities", action="store_true", help="write (C, H, W) float32 .npy files too")
    parser.add_argument(
        "--polygons",
        choices=("coco", "labelme"),
        help="write outlines to correct in a tool: annotations.json for CVAT, or LabelMe's NAME.json",
    )
    parser.add_argument(
        "--simplify", type=float, default=0.75, help="of polygons: pixels that an outline may move; 0: exact"
    )
    parser.add_argument(
        "--min_area", type=int, default=64, help="of polygons: leave out smaller regions and holes (pixels)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--resume", action="store_true", help="go on with a job that was stopped")
    parser.add_argument("--batch_size", type=int, default=1, help="pictures of one size at a time")
    parser.add_argument("--shard", help="a part of the pictures, as 3/16: the third of sixteen")
    parser.add_argument("--as_stored", action="store_true", help="do not turn pictures upright by EXIF")
    parser.add_argument("--max_pixels", type=int, default=MAX_PIXELS, help="refuse larger pictures")
    parser.add_argument(
        "--large",
        action="store_true",
        help="by windows read from the file, to a TIFF; so beyond 67 megapixels",
    )
    parser.add_argument(
        "--smoothing", type=float, default=0.0, help="of a video: share of the frames before, 0 to below 1"
    )
    add_style_arguments(parser)
    add_protocol_arguments(parser)
    return parser


def run(given: Namespace) -> None:
    from atrous.video import VIDEOS

    given.checkpoint, given.pictures = split_checkpoint(given.pictures)
    videos = [path for path in given.pictures if Path(path).suffix.lower() in VIDEOS]
    if not videos:
        predict_pictures(given)
    elif len(given.pictures) == 1:
        predict_video(given)
    else:
        raise InputError(f"{videos[0]}: predict a video alone, one at a time")


def split_checkpoint(words: Sequence[str]) -> tuple[str, list[str]]:
    """The model that the first word names, "box" where it is a picture already, and the pictures."""
    from atrous.checkpoint import BOX, locate

    first, *rest = words
    is_model = is_repository(first) or locate(first) != Path(first)
    if not is_model and Path(first).suffix.lower() not in OURS + THEIRS:
        return BOX, list(words)
    if not rest:
        raise InputError(f"which pictures? {first} is the model: give pictures or folders after it")
    return first, rest


def predict_pictures(given: Namespace) -> None:
    from atrous import processes, terminal
    from atrous.checkpoint import digest, locate
    from atrous.config import to_dict
    from atrous.data.pictures import allow_pixels
    from atrous.finding import find_pictures, part_of
    from atrous.large import is_large, segment_large_files
    from atrous.pre_annotations import COCO_FILE, PolygonOptions, join_parts, refuse_joined
    from atrous.record import Record
    from atrous.results import Outputs, refuse_clashes
    from atrous.segment_files import segment_files

    if given.batch_size < 1:
        raise InputError(f"--batch_size {given.batch_size} must be at least 1")
    if given.resume and given.overwrite:
        raise InputError("--resume and --overwrite: give one of them")
    if given.smoothing:
        raise InputError("--smoothing is for a video")
    allow_pixels(given.max_pixels)
    polygons = PolygonOptions(given.polygons, given.simplify, given.min_area) if given.polygons else None
    folder = Path(given.out or "predictions")
    style = make_style(given)
    outputs = Outputs(given.probabilities, polygons, style)
    which, of = shard(given.shard)
    found = find_pictures(given.pictures, leave_out=folder)

    def by_windows(path: Path) -> bool:
        return given.large or is_large(path)

    refuse_clashes(found, outputs, by_windows)
    pictures = part_of(found, which, of)
    if given.polygons == "coco" and not (given.overwrite or given.resume):
        refuse_joined(folder)
    terminal.check_writable(folder)
    rank, count = processes.rank(), processes.count()
    mine = part_of(pictures, rank, count)
    large = {name: path for name, path in mine.items() if by_windows(path)}
    predictor = make_predictor(given, None if large else len(found))
    settings = {
        "checkpoint": {"file": str(given.checkpoint), "sha256": digest(locate(given.checkpoint))},
        "protocol": to_dict(predictor.protocol),
        "precision": given.precision,
        "probabilities": given.probabilities,
        "as_stored": given.as_stored,
        **({"polygons": asdict(polygons)} if polygons else {}),
        "style": to_dict(style),
    }
    record = Record(
        folder, settings, f"-{which * count + rank + 1}-of-{of * count}" if of * count > 1 else ""
    )
    with processes.together():
        with terminal.Bar("predict") as bar:
            outcome = segment_files(
                predictor,
                {name: path for name, path in mine.items() if name not in large},
                folder,
                record,
                batch_size=given.batch_size,
                outputs=outputs,
                overwrite=given.overwrite,
                resume=given.resume,
                upright=not given.as_stored,
                progress=bar.show if rank == 0 else None,
            )
            segment_large_files(
                predictor,
                large,
                folder,
                record,
                outcome,
                outputs=outputs,
                overwrite=given.overwrite,
                resume=given.resume,
                upright=not given.as_stored,
                progress=bar.stage if rank == 0 else None,
            )
        broken, notes = processes.collect(outcome.broken), processes.collect(outcome.notes)
        protocols = "; ".join(dict.fromkeys(processes.collect(outcome.protocols))) or predictor.protocol
        skipped = len(processes.collect(["skipped"] * outcome.skipped))
    if rank:
        return
    terminal.say("\n".join(notes[:SHOWN])) if notes else None
    if given.polygons == "coco":
        if of > 1:
            terminal.say(
                "annotations.json: when all parts have ended, run this without --shard, with --resume"
            )
        elif len(pictures) > skipped + len(broken) or not (folder / COCO_FILE).exists():
            terminal.say(
                f"polygons of all pictures -> {join_parts(folder, pictures, predictor.labels.names)}"
            )
    already = f", {skipped} of them by an earlier job" if skipped else ""
    terminal.say(
        f"{len(pictures) - len(broken)} of {len(pictures)} pictures -> {folder}{already} ({protocols})"
    )
    if broken:
        more = [f"and {len(broken) - SHOWN} more: see {record.path}"] if len(broken) > SHOWN else []
        raise InputError("\natrous: error: ".join([*broken[:SHOWN], *more]))


def shard(text: str | None) -> tuple[int, int]:
    """ "3/16" -> (2, 16)."""
    which, slash, of = (text or "1/1").partition("/")
    if not (slash and which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
        raise InputError(f"--shard {text}: wanted a part like 3/16, from 1/16 to 16/16")
    return int(which) - 1, int(of)


def predict_video(given: Namespace) -> None:
    from atrous import terminal
    from atrous.video import TARGETS, import_av, segment_video

    import_av()
    for flag in ("probabilities", "polygons", "resume", "shard", "as_stored"):
        if given[flag]:
            raise InputError(f"--{flag} is for pictures, not for a video")
    source = Path(given.pictures[0])
    target = Path(given.out or f"{source.stem}_seg.mp4")
    if target.is_dir() or not target.suffix:
        target /= f"{source.stem}_seg.mp4"
    elif target.suffix.lower() not in TARGETS:
        raise InputError(f"--out {target}: wanted a folder or a name that ends in {' '.join(TARGETS)}")
    terminal.check_writable(target.parent)
    predictor = make_predictor(given)
    style = replace(make_style(given), names=False, legend=False)
    with terminal.Bar("predict") as bar:
        result = segment_video(predictor, source, target, given.smoothing, given.overwrite, bar.show, style)
    for note in result.notes:
        terminal.say(note)
    smoothing = f", smoothing {given.smoothing:g}" if given.smoothing else ""
    terminal.say(f"{result.frames} frames -> {target} ({predictor.protocol}{smoothing})")
