"""How long a network takes on this machine, by runtime, precision and size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn

from atrous import checkpoint
from atrous.runtimes import Exported, installed, load, prepare

# runtime, precision; the first of a device is what the others are compared with
ON_CPU = (
    ("eager", "fp32"),
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)
ELSEWHERE = (("eager", "fp32"), ("torch", "fp32"), ("torch", "bf16"))

# seconds before each call: the threads of the runtime before go on waiting in a busy loop for some milliseconds
PAUSE = 0.02

Progress = Callable[[int, int, str], None]


class Timing(NamedTuple):
    """One way to run the network: milliseconds of each call on (1, c, height, width), and the largest difference of
    its scores from those of the model as it is, as a share of the largest score."""

    runtime: str
    precision: str
    size: tuple[int, int]
    milliseconds: tuple[float, ...]
    difference: float

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def benchmark(
    path: Path,
    sizes: Sequence[tuple[int, int]],
    device: torch.device,
    rounds: int = 10,
    progress: Progress | None = None,
) -> list[Timing]:
    """Time the network of a checkpoint, or of an exported file, in every way that is installed here.

    All take turns, round after round, so that what else the machine does falls on all of them; one call each before.
    The scores on the network's own grid are timed; to labels at full size is the same for all.
    """
    model = load(path)
    networks: dict[tuple[str, str], nn.Module] = {}
    if isinstance(model, Exported):
        networks[model.runtime, str(model.graph["precision"])] = model
    else:
        known = ON_CPU if device.type == "cpu" else ELSEWHERE
        ways = [way for way in known if way[0] in ("eager", "torch") or installed(way[0])]
        for done, way in enumerate(ways):
            if progress:
                progress(done + 1, len(ways), f"prepare {way[0]} {way[1]}")
            networks[way] = prepare(load(path), device, *way, source=checkpoint.locate(path))
    found = []
    for number, size in enumerate(sizes):
        x = torch.randn(1, checkpoint.config_of(model).in_channels, *size, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        expected = _scores(next(iter(networks.values())), x)
        top = float(expected.abs().max()) or 1.0
        far = {way: float((_scores(n, x) - expected).abs().max()) / top for way, n in networks.items()}
        times: dict[tuple[str, str], list[float]] = {way: [] for way in networks}
        for turn in range(rounds):
            for way, network in networks.items():
                time.sleep(PAUSE)
                start = time.perf_counter()
                _scores(network, x)
                times[way].append(1e3 * (time.perf_counter() - start))
            if progress:
                progress(number * rounds + turn + 1, len(sizes) * rounds, f"{size[0]}x{size[1]}")
        found += [Timing(*way, size, tuple(times[way]), far[way]) for way in networks]
    return found


@torch.inference_mode()
def _scores(network: nn.Module, x: Tensor) -> Tensor:
    scores: Tensor = network.scores(x)["out"]  # type: ignore[operator]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return scores


def table(timings: Sequence[Timing]) -> Table:
    """One row for each way, the median of each size, and how often faster than the first."""
    sizes = list(dict.fromkeys(t.size for t in timings))
    result = Table(
        "runtime", "precision", *(f"{h}x{w}, ms" for h, w in sizes), "speed", "difference of scores"
    )
    for column in result.columns[2:]:
        column.justify = "right"
    ways = list(dict.fromkeys((t.runtime, t.precision) for t in timings))
    base = {t.size: t.median for t in reversed(timings) if (t.runtime, t.precision) == ways[0]}
    for way in ways:
        mine = [t for t in timings if (t.runtime, t.precision) == way]
        speed = statistics.geometric_mean(base[t.size] / t.median for t in mine)
        result.add_row(
            *way,
            *(f"{t.median:.1f}" for t in mine),
            f"{speed:.2f}x",
            f"{max(t.difference for t in mine):.1e}",
        )
    return result


def recommendation(timings: Sequence[Timing]) -> str:
    """One line: the fastest way with the same scores, and the fastest of all where it gains a quarter."""
    total: dict[tuple[str, str], float] = {}
    for t in timings:
        total[t.runtime, t.precision] = total.get((t.runtime, t.precision), 0) + t.median
    exact = min((way for way in total if way[1] != "bf16"), key=total.__getitem__)
    best = min(total, key=total.__getitem__)
    line = f"recommended here: --runtime {exact[0]}"
    if total[best] < total[exact] / 1.25:
        gain = total[exact] / total[best]
        line += f"; --runtime {best[0]} --precision bf16 is {gain:.1f} times faster, with scores rounded"
    return line
