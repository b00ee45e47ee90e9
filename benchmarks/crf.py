"""The dense CRF beside pydensecrf, in one run: time, memory, agreement, and how the cost grows.

    python benchmarks/crf.py [--image PICTURE] [--rounds 5] [--works dense real large many] [--threads 1 2]
    python benchmarks/crf.py --agreement PICTURE...      both answers on real pictures, several parameters
    python benchmarks/crf.py --growth growth.csv         time and memory against pixels and classes, and a plot of it
    python benchmarks/crf.py --bandwidth                 bytes that an iteration has to move, and how fast it does
    python benchmarks/crf.py --cold                      the first call, nothing compiled yet

pydensecrf is built from its repository (github.com/lucasb-eyer/pydensecrf); without it only ours is timed. Set-up (the
lattices) is part of every time. The two alternate, and medians are compared. Peak memory is of a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
DEFAULTS = {"iter_max": 10, "pos_w": 3, "pos_xy_std": 1, "bi_w": 4, "bi_xy_std": 67, "bi_rgb_std": 3}
# name -> (height, width, classes, kind of scores)
WORKS = {
    "dense": (375, 500, 21, "dense"),
    "real": (375, 500, 21, "real"),
    "large": (1024, 2048, 19, "dense"),
    "large-real": (1024, 2048, 19, "real"),
    "many": (375, 500, 150, "dense"),
    "many-real": (375, 500, 150, "real"),
}


def scores(kind: str, classes: int, height: int, width: int, seed: int = 0) -> Array:
    """Probabilities (C, H, W) float32. "dense": smooth and random, every class alive somewhere; "real": what a trained
    network gives, 4 classes alive and the others under 1e-4 everywhere."""
    rng = np.random.default_rng(seed)

    def smooth(count: int, sharpness: float) -> Array:
        coarse = torch.from_numpy(rng.random((1, count, height // 20 + 2, width // 20 + 2), np.float32))
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        return torch.softmax(sharpness * fine, 0).numpy()

    if kind == "dense":
        return smooth(classes, 8.0)
    alive = min(4, classes)
    p = np.empty((classes, height, width), np.float32)
    p[alive:] = smooth(max(classes - alive, 1), 4.0)[: classes - alive]
    p[alive:] *= 9e-5 / max(1e-30, p[alive:].max(initial=0))
    p[:alive] = smooth(alive, 16.0) * (1 - p[alive:].sum(0))
    return p


def picture(height: int, width: int, path: Path | None) -> Array:
    """A photograph resized, or a drawn scene with texture: (H, W, 3) uint8."""
    if path:
        return np.array(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    image = np.stack([90 + 80 * x / width, 100 + 60 * y / height, 120 + 0 * x], -1)
    for _ in range(40):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(10, height / 5)
        image[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.uniform(20, 235, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def ours(image: Array, p: Array, parameters: dict[str, Any]) -> Array:
    """atrous.DenseCRF."""
    from atrous.crf import DenseCRF

    return DenseCRF(**parameters)(image, p)


def theirs(image: Array, p: Array, parameters: dict[str, Any]) -> Array:
    """pydensecrf, as its readme does it."""
    import pydensecrf.densecrf as dcrf
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = p.shape
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(p))
    crf.addPairwiseGaussian(sxy=parameters["pos_xy_std"], compat=parameters["pos_w"])
    crf.addPairwiseBilateral(
        sxy=parameters["bi_xy_std"], srgb=parameters["bi_rgb_std"], rgbim=image, compat=parameters["bi_w"]
    )
    return np.array(crf.inference(parameters["iter_max"])).reshape(p.shape)


def have_pydensecrf() -> bool:
    """Whether it can be imported."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        return False
    return True


def clock(f: Callable[[], Any]) -> float:
    """Seconds that `f` takes."""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def compare(name: str, threads: int, rounds: int, path: Path | None) -> None:
    """Time one work in alternation and print medians and their ratio."""
    height, width, classes, kind = WORKS[name]
    image, p = picture(height, width, path), scores(kind, classes, height, width)
    torch.set_num_threads(threads)
    ours(image, p, {**DEFAULTS, "iter_max": 1})  # compile, or load what was compiled
    mine, other = [], []
    for _ in range(rounds):
        mine.append(clock(lambda: ours(image, p, DEFAULTS)))
        if have_pydensecrf():
            other.append(clock(lambda: theirs(image, p, DEFAULTS)))
    line = f"{name:10s} {width}x{height} C={classes:<3d} {threads} threads  ours {statistics.median(mine):7.3f} s"
    if other:
        ratio = statistics.median(other) / statistics.median(mine)
        pairs = sorted(b / a for a, b in zip(mine, other, strict=True))
        line += f"  pydensecrf {statistics.median(other):7.3f} s  ratio {ratio:5.2f}"
        line += f"  (pairs {pairs[0]:.2f}..{pairs[-1]:.2f})"
    print(line, flush=True)


def alone(code: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, float]:
    """Run a `--child` of this file and return what it reports."""
    command = [sys.executable, __file__, "--child", code, *arguments]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    report: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return report


def child(code: str, work: str, path: Path | None) -> None:
    """Do one work by `code`, ours or theirs, and report its time and its peak memory above what it started with."""
    height, width, classes, kind = (
        WORKS[work] if work in WORKS else (*map(int, work.split("x")[:3]), work.split("x")[3])
    )
    image, p = picture(height, width, path), scores(kind, classes, height, width)
    start = time.perf_counter()
    if code == "ours":  # compiling takes memory too, once
        ours(image[:8, :8], p[:, :8, :8], DEFAULTS)
    compiling = time.perf_counter() - start
    held = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    start = time.perf_counter()
    (ours if code == "ours" else theirs)(image, p, DEFAULTS)
    seconds = time.perf_counter() - start
    again = clock(lambda: ours(image, p, DEFAULTS)) if code == "ours" else seconds
    print(json.dumps({"first": compiling + seconds, "seconds": again, "megabytes": resident("VmHWM") - held}))


def resident(kind: str) -> float:
    """This process's memory in MB: VmRSS now, VmHWM the most since the last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def memory(name: str) -> None:
    """Print the peak memory of both, above that of a process which only holds the inputs."""
    line = f"{name:10s} peak memory above the inputs: ours {alone('ours', name)['megabytes']:6.0f} MB"
    if have_pydensecrf():
        line += f"  pydensecrf {alone('theirs', name)['megabytes']:6.0f} MB"
    print(line, flush=True)


def growth(target: Path) -> None:
    """Write time and memory against pixels (21 classes) and classes (500x375) as CSV."""
    sizes = [
        (int((mp * 0.75e6) ** 0.5), int((mp / 0.75 * 1e6) ** 0.5), 21) for mp in (0.1, 0.2, 0.5, 1, 2, 4, 8)
    ]
    sizes += [(375, 500, classes) for classes in (2, 5, 10, 21, 40, 80, 150)]
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["code", "height", "width", "classes", "seconds", "megabytes"])
        for height, width, classes in sizes:
            for code in ("ours", "theirs") if have_pydensecrf() else ("ours",):
                report = alone(code, f"{height}x{width}x{classes}xdense")
                row = [code, height, width, classes, round(report["seconds"], 3), round(report["megabytes"])]
                writer.writerow(row)
                print(*row, flush=True)


def plot(source: Path, target: Path) -> None:
    """Draw what `growth` wrote."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_size = [(r, int(r["height"]) * int(r["width"]) / 1e6) for r in rows if r["classes"] == "21"]
    by_classes = [(r, int(r["classes"])) for r in rows if (r["height"], r["width"]) == ("375", "500")]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    columns = (("megapixels (21 classes)", by_size), ("classes (500x375)", by_classes))
    for column, (against, chosen) in enumerate(columns):
        for line, (unit, title) in enumerate((("seconds", "time (s)"), ("megabytes", "peak memory (MB)"))):
            axis = axes[line][column]
            for code, name, style in (("theirs", "pydensecrf", "C1s--"), ("ours", "atrous", "C0o-")):
                points = sorted((x, float(row[unit])) for row, x in chosen if row["code"] == code)
                axis.plot(*zip(*points, strict=True), style, label=name)
            axis.set(xscale="log", yscale="log", xlabel=against, ylabel=title)
            axis.grid(alpha=0.3, which="both")
    axes[0][0].legend()
    figure.savefig(target, dpi=110)


def bandwidth(name: str, threads: int, path: Path | None) -> None:
    """Print the bytes that an iteration moves at least, beside the rate at which this machine copies memory.

    At least: every list read once, every row of Q and of the lattices read and written once by each step.
    """
    from atrous.crf import fast, mean_field, unary

    torch.set_num_threads(threads)
    height, width, classes, kind = WORKS[name]
    image, p = (
        torch.from_numpy(picture(height, width, path)),
        torch.from_numpy(scores(kind, classes, height, width)),
    )
    terms = [
        fast.Term(mean_field.position_features((height, width), 1).numpy(), 3.0, "symmetric"),
        fast.Term(mean_field.bilateral_features(image, 67, 3).numpy(), 4.0, "symmetric"),
    ]
    energies = unary.unary_from_probabilities(p).flatten(1)
    model = fast.CompiledMeanField(energies, terms, mean_field.tile_order(height, width))
    n, stack = height * width, model.stack
    lanes, blocks = fast.row_shape(len(model.alive))
    row = 8 * len(lanes) * blocks
    lists = sum(layer.start.nbytes + layer.point.nbytes + layer.weight.nbytes for _, layer in stack.layers)
    chains = sum(12 * len(axis.order) for _, layer in stack.layers for axis in layer.axes)
    blurred = sum(2 * 2 * row * len(axis.order) for _, layer in stack.layers for axis in layer.axes)
    moved = {
        "splat": lists + 2 * row * (n + stack.num_vertices),
        "blur": chains + blurred,
        "update": stack.index.nbytes
        + stack.slice_weight.nbytes
        + 2 * row * (n + stack.num_vertices)
        + 4 * row * n,
    }
    model.run(1)
    few, many = (statistics.median(clock(lambda k=k: model.run(k)) for _ in range(5)) for k in (2, 12))
    per_iteration = (many - few) / 10
    total = sum(moved.values())
    copied = copy_rate(threads)
    parts = ", ".join(f"{step} {size / 1e6:.0f} MB" for step, size in moved.items())
    print(
        f"{name:10s} {threads} threads: an iteration moves {total / 1e6:.0f} MB ({parts}) "
        f"in {per_iteration * 1e3:.1f} ms, "
        f"{total / per_iteration / 1e9:.1f} GB/s; a copy of memory moves {copied:.1f} GB/s: "
        f"{total / per_iteration / 1e9 / copied:.0%} of it",
        flush=True,
    )


def copy_rate(threads: int) -> float:
    """GB/s read and written when `threads` threads copy arrays far larger than the caches."""
    from concurrent.futures import ThreadPoolExecutor

    pairs = [(np.ones(2**25, np.float32), np.zeros(2**25, np.float32)) for _ in range(threads)]

    def copy() -> None:
        for done in [pool.submit(np.copyto, b, a) for a, b in pairs]:
            done.result()

    with ThreadPoolExecutor(threads) as pool:
        copy()
        seconds = statistics.median(clock(copy) for _ in range(7))
    return 2 * sum(a.nbytes for a, _ in pairs) / seconds / 1e9


def agreement(paths: list[Path]) -> None:
    """Print how far the two answers are apart on real pictures."""
    sets = [
        {},
        {"bi_xy_std": 50, "bi_rgb_std": 10, "pos_xy_std": 3},
        {"bi_w": 10, "bi_xy_std": 80, "bi_rgb_std": 13},
    ]
    for path in paths:
        image = np.array(Image.open(path).convert("RGB"))
        for classes in (2, 21, 150):
            for kind in ("dense", "real"):
                p = scores(kind, classes, *image.shape[:2])
                for chosen in sets if classes < 150 else sets[:1]:
                    for iterations in (1, 5, 10):
                        parameters = {**DEFAULTS, **chosen, "iter_max": iterations}
                        a, b = ours(image, p, parameters), theirs(image, p, parameters)
                        far = np.abs(a - b).max(0)
                        n = far.size
                        print(
                            f"{path.stem} C={classes:<3d} {kind:5s} its={iterations:<2d} {chosen}: "
                            f"max {far.max():.1e}, "
                            f"within 1e-3 {(far <= 1e-3).mean():.6f} ({int((far > 1e-3).sum())} of {n} beyond), "
                            f"labels differ {int((a.argmax(0) != b.argmax(0)).sum())}",
                            flush=True,
                        )


def main() -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=["dense", "real"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--agreement", nargs="+", type=Path)
    parser.add_argument("--growth", type=Path)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--bandwidth", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.image)
    elif options.agreement:
        agreement(options.agreement)
    elif options.growth:
        growth(options.growth)
        plot(options.growth, options.growth.with_suffix(".png"))
    elif options.bandwidth:
        for name in options.works:
            for threads in options.threads:
                bandwidth(name, threads, options.image)
    elif options.cold:
        with tempfile.TemporaryDirectory() as empty:
            report = alone("ours", "dense", env={"NUMBA_CACHE_DIR": empty})
            second = alone("ours", "dense", env={"NUMBA_CACHE_DIR": empty})
        print(
            f"first call ever {report['first']:.1f} s, first of a process {second['first']:.1f} s", end=", "
        )
        print(f"second {second['seconds']:.2f} s")
    else:
        for name in options.works:
            for threads in options.threads:
                compare(name, threads, options.rounds, options.image)
            if options.memory:
                memory(name)


if __name__ == "__main__":
    main()
