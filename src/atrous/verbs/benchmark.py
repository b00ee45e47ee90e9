"""`atrous benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """latency of a checkpoint on this machine, by runtime, precision and size, and which to take"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument(
        "checkpoint", help="file that `atrous train`, `import` or `export` wrote, or folder of a run"
    )
    parser.add_argument(
        "--size", type=tuple[int, ...], default=(512,), help="sides of square pictures, in pixels"
    )
    parser.add_argument("--rounds", type=int, default=10, help="calls of each, in turns")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    return parser


def run(given: Namespace) -> None:
    import torch

    from atrous import terminal
    from atrous.benchmark import benchmark, recommendation, table
    from atrous.errors import InputError
    from atrous.predict import pick_device

    if min(given.size) < 1 or given.rounds < 1 or (given.threads or 1) < 1:
        raise InputError("--size, --rounds and --threads must be at least 1")
    if given.threads:
        torch.set_num_threads(given.threads)
    device = pick_device(given.device)
    with terminal.Bar("benchmark") as bar:
        timings = benchmark(
            Path(given.checkpoint), [(side, side) for side in given.size], device, given.rounds, bar.show
        )
    terminal.say(f"{given.checkpoint} on {device}, {torch.get_num_threads()} threads, batch 1, medians")
    terminal.say(table(timings))
    terminal.say(recommendation(timings))
