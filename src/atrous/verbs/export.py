"""`atrous export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.replacing import replacing
from atrous.verbs.data_as_trained import add_data_arguments, as_trained
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """write a checkpoint for another runtime (ONNX, OpenVINO, torch.export), or in another project's names"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "checkpoint", help="file that `atrous train` or `atrous import` wrote, or folder of a run"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--format", choices=("onnx", "openvino", "torch"), help="the runtime: .onnx, .xml, .pt2"
    )
    kind.add_argument(
        "--as", dest="target", choices=("torchvision", "smp"), help="the project, for its load_state_dict"
    )
    parser.add_argument(
        "--out", help="file to write (default: NAME.onnx, .xml, .pt2 or NAME_PROJECT.pth here)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    runtime = parser.add_argument_group("for --format")
    runtime.add_argument(
        "--labels",
        action="store_true",
        help="uint8 RGB in, labels out: normalisation, upsampling, argmax inside",
    )
    int8 = parser.add_argument_group("int8, for --format onnx or openvino")
    int8.add_argument("--int8", metavar="DATA", help='quantise with pictures of this data set, or "scenes"')
    int8.add_argument(
        "--calibration_split",
        help="its part that shows the ranges of values (default: the recipe's, or train)",
    )
    add_data_arguments(int8, "on which mIoU is measured, before and after", format="--data_format")
    int8.add_argument("--limit", type=int, help="measure on the first pictures alone")
    int8.add_argument(
        "--largest_loss", type=float, default=0.01, help="of mIoU, above which no file is written"
    )
    return parser


def run(given: Namespace) -> None:
    if given.format is None:
        write_weights(given)
    elif given.int8 is not None:
        write_int8(given)
    else:
        write_program(given)


def write_int8(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load, metadata_of
    from atrous.quantize import quantize
    from atrous.runtimes.export import FORMATS

    if given.labels or given.format == "torch":
        raise InputError("--int8 is for --format onnx or openvino, without --labels")
    suffix = FORMATS[given.format].suffix
    target = new_file(given, f"_int8{suffix}", (suffix,))
    model = load(given.checkpoint)
    opening = as_trained(
        metadata_of(model).recipe, given.int8, given.split, given.data_format, given.data_options
    )
    calibration, validation = opening.open(given.calibration_split or opening.train_split), opening.open()
    if opening.note:
        terminal.say(opening.note)
    with terminal.Bar("int8") as bar:
        found = quantize(
            model,
            target,
            given.format,
            calibration,
            validation,
            limit=given.limit,
            largest_loss=given.largest_loss,
            progress=bar.stage,
        )
    terminal.say(
        f"mIoU {found.before.miou:.4f} in float, {found.after.miou:.4f} in int8 "
        f"({given.int8}, {opening.split}): {-100 * found.loss:+.2f} points"
    )
    terminal.say(f"logits at any batch and size: {target}")


def write_program(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load
    from atrous.runtimes.export import FORMATS, export

    format = FORMATS[given.format]
    target = new_file(given, format.suffix, (format.suffix,))
    model = load(given.checkpoint)
    if model.config.fake_quantize:
        terminal.say("the 8-bit rounding of the file that this model was imported from is left out")
    parity = export(model, target, given.format, "labels" if given.labels else "logits")
    terminal.say(f"beside the model: {parity}")
    terminal.say(f"{'labels' if given.labels else 'logits'} at any batch and size: {target}")


def write_weights(given: Namespace) -> None:
    import torch
    from safetensors.torch import save_file

    from atrous import terminal
    from atrous.checkpoint import load
    from atrous.importers.export import export_state_dict

    if given.labels:
        raise InputError("--labels belongs to --format: weights alone have no graph")
    target = new_file(given, f"_{given.target}.pth", (".pth", ".pt", ".safetensors"))
    weights = export_state_dict(load(given.checkpoint), given.target)
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    with replacing(target) as beside:
        if target.suffix == ".safetensors":
            save_file(weights, beside)
        else:
            torch.save(weights, beside)
    terminal.say(f"{len(weights)} weights in the names of {given.target}: {target}")


def new_file(given: Namespace, ending: str, suffixes: Sequence[str]) -> Path:
    """Where to write; InputError where something is there already, and for another ending than `suffixes`."""
    from atrous import terminal

    target = Path(given.out or f"{Path(given.checkpoint).stem}{ending}")
    if target.suffix not in suffixes:
        raise InputError(f"{target}: wanted a name that ends in {' or '.join(suffixes)}")
    taken = [path for path in (target, target.with_suffix(".bin")) if path.exists()]
    if taken and not given.overwrite and (target.exists() or target.suffix == ".xml"):
        raise InputError(f"{taken[0]}: exists already; give another --out, or --overwrite")
    terminal.check_writable(target.parent)
    return target
