"""Pictures larger than memory: peak memory and time of `segment_large` for several sizes and numbers of classes.

    python benchmarks/large.py --sizes 5000 10000 20000 --classes 9 150 [--plot docs/images/large_growth.png]

A picture of N x N pixels is drawn as a deflated, tiled TIFF and predicted in a process of its own, whose peak resident
memory is the kernel's (VmHWM). Time is told twice, by the clock and of the CPU, all threads; the latter, which is
drawn, can be believed beside other work too. The network costs next to nothing: a pooled 1x1 convolution whose scores
are brought to full size; so these are the costs of all around it. --model FILE takes a checkpoint instead. --stop N
ends a run after N windows, for a look at its memory alone: that is at its peak from the second row of windows on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.checkpoint import Metadata
from atrous.config import ModelConfig
from atrous.data.labels import Labels
from atrous.large import segment_large
from atrous.predict import Predictor

TILE = 512


class Cheap(nn.Module):
    """(N, 3, H, W) -> (N, C, H, W): colours at 1/16 of the size, weighted."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.align_corners = False
        self.classifier = nn.Conv2d(3, classes, 1)
        self.config = ModelConfig("cheap", "none", classes, output_stride=16)
        self.metadata = Metadata(Labels.named([f"class_{i}" for i in range(classes)]))

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(F.avg_pool2d(x, 16, ceil_mode=True))}

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.scores(x)["out"], x.shape[-2:], mode="bilinear")


def draw(path: Path, size: int) -> None:
    """Tiles of soft colour, a few kinds in turn."""
    import tifffile

    rng = torch.Generator().manual_seed(0)
    kinds = []
    for _ in range(16):
        soft = F.interpolate(torch.rand(1, 3, 9, 9, generator=rng), (TILE, TILE), mode="bicubic")[0]
        values = (soft * 255 + 4 * torch.randn(3, TILE, TILE, generator=rng)).clamp(0, 255)
        kinds.append(zlib.compress(values.byte().permute(1, 2, 0).contiguous().numpy().tobytes(), 1))
    count = (-(-size // TILE)) ** 2

    def tiles() -> Iterator[bytes]:
        for i in range(count):
            yield kinds[(i * 7 + i // 16) % len(kinds)]

    tifffile.imwrite(
        path, tiles(), shape=(size, size, 3), dtype=np.uint8, photometric="rgb", tile=(TILE, TILE), compression="zlib",
        bigtiff=True, metadata=None,
    )  # fmt: skip


class Stopped(Exception):  # noqa: N818  # no error: enough was seen
    """After --stop windows."""


def child(size: int, classes: int, options: argparse.Namespace) -> None:
    """Draw, predict, print what it took."""
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        draw(Path(folder, "a.tif"), size)
        model = options.model or Cheap(classes)
        predictor = Predictor(model, "slide", (options.window, options.window), 0, overlap=options.overlap)
        begun, begun_cpu, windows = time.perf_counter(), time.process_time(), 0

        def progress(done: int, of: int, title: str) -> None:
            nonlocal windows
            windows = of
            if done == options.stop:
                raise Stopped

        stopped = False
        try:
            segment_large(predictor, Path(folder, "a.tif"), Path(folder), "out", progress=progress)
        except Stopped:
            stopped = True
        seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    peak = int(status.split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "windows": windows, "stopped": stopped}))


def plot(rows: list[dict[str, float]], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for color, classes in zip(
        ("C0", "C1", "C2", "C3"), sorted({row["classes"] for row in rows}), strict=False
    ):
        points = sorted((row["size"] ** 2 / 1e6, row) for row in rows if row["classes"] == classes)
        x = [megapixels for megapixels, _ in points]
        left.plot(x, [row["cpu"] for _, row in points], f"{color}o-", label=f"{classes} classes")
        right.plot(x, [row["peak"] / 1024 for _, row in points], f"{color}o-", label=f"{classes} classes")
    left.set(xlabel="megapixels", ylabel="CPU time (s)", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="megapixels", ylabel="peak memory (GiB)", xlim=(0, None), ylim=(0, 2.1))
    right.axhline(2, color="0.5", linestyle="--")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2500, 5000, 10000, 20000])
    parser.add_argument("--classes", type=int, nargs="+", default=[9, 150])
    parser.add_argument("--window", type=int, default=513)
    parser.add_argument("--overlap", type=float, default=1 / 3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--model", help="checkpoint in place of the cheap network; --classes is then its own")
    parser.add_argument("--stop", type=int, help="windows after which a run ends")
    parser.add_argument("--folder", help="where pictures are drawn; they go afterwards")
    parser.add_argument("--plot", type=Path, help="draw the growth into this file")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options)
        return
    rows = []
    for classes in options.classes:
        for size in options.sizes:
            words = [sys.executable, __file__, *sys.argv[1:], "--child", str(size), str(classes)]
            answer = subprocess.run(words, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(answer.stderr)
            row = {"size": size, "classes": classes, **json.loads(answer.stdout.splitlines()[-1])}
            rows.append(row)
            note = f"   stopped after {options.stop} of them" if row["stopped"] else ""
            print(
                f"{size} x {size}, {classes} classes: {row['seconds']:.1f} s, {row['cpu']:.1f} s of CPU, "
                f"{row['cpu'] / size**2 * 1e6:.3f} a megapixel, peak {row['peak']:.0f} MiB, "
                f"{row['windows']} windows{note}",
                flush=True,
            )
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
