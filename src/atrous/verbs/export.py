"""`atrous export`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """write a checkpoint's weights in another project's names, for its load_state_dict"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("checkpoint", help="file that `atrous train` or `atrous import` wrote")
    parser.add_argument(
        "--as", dest="target", required=True, choices=("torchvision", "smp"), help="the project"
    )
    parser.add_argument("--out", help="file to write, .pth or .safetensors (default: NAME_PROJECT.pth here)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(given: Namespace) -> None:
    import torch
    from safetensors.torch import save_file

    from atrous import terminal
    from atrous.checkpoint import load
    from atrous.importers.export import export_state_dict

    target = Path(given.out or f"{Path(given.checkpoint).stem}_{given.target}.pth")
    if target.exists() and not given.overwrite:
        raise InputError(f"{target}: exists already; give another --out, or --overwrite")
    if target.suffix not in (".pth", ".pt", ".safetensors"):
        raise InputError(f"{target}: wanted a name that ends in .pth, .pt or .safetensors")
    terminal.check_writable(target.parent)
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
