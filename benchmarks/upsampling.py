"""Labels at full size from coarse scores: ours beside `F.interpolate(...).argmax(1)`, time and peak memory in one run.

    python benchmarks/upsampling.py [--rounds 5] [--threads 2]

Scores are smooth and random ("smooth", as a network's are) or independent at every point ("noise", the worst case).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.kernels.upsampling import resized_labels

# classes, stride, height, width, kind
WORKS = [
    (21, 16, 513, 513, "smooth"),
    (19, 4, 1024, 2048, "smooth"),
    (150, 8, 1024, 2048, "smooth"),
    (150, 8, 1024, 2048, "noise"),
]


def scores(classes: int, stride: int, height: int, width: int, kind: str) -> Tensor:
    """Logits (C, h, w)."""
    torch.manual_seed(0)
    h, w = -(-height // stride), -(-width // stride)
    if kind == "noise":
        return torch.randn(classes, h, w)
    return F.interpolate(4 * torch.randn(1, classes, 9, 17), (h, w), mode="bicubic")[0]


def theirs(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[None], size, mode="bilinear", align_corners=False).argmax(1)[0]


def seconds(f: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def peak(code: str, work: int) -> float:
    """Megabytes that a process of its own needs beyond its inputs."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", code, str(work)], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def child(code: str, work: int) -> None:
    logits, size = scores(*WORKS[work]), WORKS[work][2:4]
    resized_labels(logits[:, :2, :2], (4, 4))  # compiled before
    held = memory("VmRSS")
    start_peak()
    (resized_labels if code == "ours" else theirs)(logits, size)
    print(json.dumps(memory("VmHWM") - held))


def start_peak() -> None:
    """VmHWM starts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(kind: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    for number, work in enumerate(WORKS):
        classes, stride, height, width, kind = work
        logits, size = scores(*work), (height, width)
        different = int((resized_labels(logits, size).long() != theirs(logits, size)).sum())
        ours, other = [], []
        for _ in range(options.rounds):
            ours.append(seconds(lambda: resized_labels(logits, size)))  # noqa: B023
            other.append(seconds(lambda: theirs(logits, size)))  # noqa: B023
        a, b = statistics.median(ours), statistics.median(other)
        mine, their = peak("ours", number), peak("theirs", number)
        times = (
            f"ours {a * 1e3:6.0f} ms {mine:5.0f} MB  interpolate + argmax {b * 1e3:6.0f} ms {their:5.0f} MB"
        )
        ratios = f"time {b / a:5.1f}x  memory {their / max(mine, 1):5.1f}x"
        wrong = f"{different} of {height * width} labels differ"
        print(
            f"C={classes:<3d} stride {stride:<2d} -> {width}x{height} {kind:6s}  {times}  {ratios}  {wrong}",
            flush=True,
        )


if __name__ == "__main__":
    main()
