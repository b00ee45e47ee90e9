"""`atrous export`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """write a checkpoint for another runtime (ONNX, OpenVINO, torch.export), or in another project's names"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train` or `atrous import` wrote")
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
    return parser


def run(given: Namespace) -> None:
    if given.format is None:
        write_weights(given)
    else:
        write_program(given)


def write_program(given: Namespace) -> None:
    from atrous import terminal
    from atrous.checkpoint import load
    from atrous.runtimes.export import FORMATS, export

    format = FORMATS[given.format]
    target = new_file(given, format.suffix, (format.suffix,))
    model = load(given.checkpoint)
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
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix == ".safetensors":
            save_file(weights, beside)
        else:
            torch.save(weights, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
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
