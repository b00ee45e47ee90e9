"""Accuracy, speed and memory of the papers' systems side by side, for docs/choosing.md.

    python benchmarks/choosing.py --out choosing.json                 speed and memory here, a process for each
    python benchmarks/choosing.py --file box --file best.safetensors  the same of checkpoints, by their own protocol
    python benchmarks/choosing.py --plot choosing.json choosing.png   the chart (matplotlib)

Speed: `Predictor.label_map` on one 513x513 picture, from uint8 pixels to labels, runtime torch (batch norm folded,
channels last), float32, as many threads as torch takes. Memory: the peak of a process that predicts one, above the
same process before the model is built. Weights are random: they change neither. Accuracy is the papers' own on
PASCAL VOC 2012 val (see recipes/): nobody trained these here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

SIZE, ROUNDS = 513, 5


class System(NamedTuple):
    """A model of the papers, and its mIoU on VOC 2012 val, one scale, no CRF, as printed."""

    title: str
    name: str
    backbone: str
    options: dict[str, Any]
    miou: float
    source: str


SYSTEMS = [
    System("v1 VGG-16", "deeplab_v1", "vgg16", {}, 62.25, "v1 tab. 1"),
    System("v2 VGG-16, ASPP-L", "deeplab_v2", "vgg16", {"head": "aspp_l"}, 68.96, "v2 tab. 3"),
    System("v2 ResNet-101, 3 scales", "deeplab_v2", "resnet101", {"msc": True}, 76.35, "v2 tab. 4, COCO"),
    System("v3 MobileNetV2", "deeplab_v3", "mobilenet_v2", {"atrous_rates": ()}, 75.32, "Google's model zoo, COCO"),
    System("v3 ResNet-101", "deeplab_v3", "resnet101", {}, 77.21, "v3 tab. 5"),
    System("v3 ResNet-101, stride 8", "deeplab_v3", "resnet101", {"output_stride": 8}, 78.51, "v3 tab. 5"),
    System("v3+ ResNet-101", "deeplab_v3plus", "resnet101", {}, 78.85, "v3+ tab. 3"),
    System("v3+ Xception-65", "deeplab_v3plus", "xception65", {}, 79.93, "v3+ tab. 5"),
    System("v3+ Xception-65, separable", "deeplab_v3plus", "xception65", {"separable": True}, 79.79, "v3+ tab. 5"),
]  # fmt: skip


PLACES = {  # of the labels that would lie on each other, in points
    "v3+ Xception-65": (10, 12, "left"),
    "v3+ Xception-65, separable": (-14, 6, "right"),
    "v3+ ResNet-101": (10, -14, "left"),
    "v3 ResNet-101": (0, -16, "center"),
    "v3 ResNet-101, stride 8": (0, 16, "center"),
    "v2 ResNet-101, 3 scales": (0, -18, "center"),
}


def measure(system: System | str) -> dict[str, Any]:
    """In this process, which should be new."""
    import torch

    from atrous import create_model, load
    from atrous.predict import Predictor

    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
    before = peak()
    if isinstance(system, System):
        model = create_model(system.name, system.backbone, **system.options).eval()
        about = system._asdict()
    else:
        model, about = load(system), {"title": system}
    parameters = sum(weights.numel() for weights in model.parameters())
    predictor = Predictor(model)
    predictor.label_map(image)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        predictor.label_map(image)
        times.append(time.perf_counter() - start)
    return {
        **about,
        "parameters": parameters,
        "milliseconds": round(1e3 * statistics.median(times), 1),
        "megabytes": round((peak() - before) / 1e6),
        "threads": torch.get_num_threads(),
    }


def peak() -> int:
    """Bytes of memory that this process has held at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    colours = {
        "deeplab_v1": "#0072B2",
        "deeplab_v2": "#E69F00",
        "deeplab_v3": "#009E73",
        "deeplab_v3plus": "#CC79A7",
    }
    for row in rows:
        colour = colours[row["name"]]
        axes.scatter(
            row["milliseconds"], row["miou"], row["megabytes"] / 4, color=colour, alpha=0.6, edgecolor="k"
        )
        dx, dy, align = PLACES.get(row["title"], (0, 12, "center"))
        axes.annotate(
            row["title"],
            (row["milliseconds"], row["miou"]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlabel(
        f"milliseconds for one {SIZE}x{SIZE} picture, {rows[0]['threads']} threads, float32, measured here"
    )
    axes.set_ylabel("mIoU on VOC 2012 val, the papers' own (%)")
    axes.margins(x=0.22, y=0.2)
    axes.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("choosing.json"))
    parser.add_argument("--plot", type=Path, nargs=2, metavar=("JSON", "PNG"))
    parser.add_argument(
        "--file", action="append", help="measure this checkpoint, and not the papers' systems"
    )
    parser.add_argument("--one", help="measure this one and print it")
    given = parser.parse_args()
    if given.plot:
        plot(json.loads(given.plot[0].read_text()), given.plot[1])
        return
    if given.one is not None:
        print(json.dumps(measure(SYSTEMS[int(given.one)] if given.one.isdecimal() else given.one)))
        return
    rows = []
    for one in given.file or [str(number) for number in range(len(SYSTEMS))]:
        command = [sys.executable, __file__, "--one", one]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(output.splitlines()[-1])
        rows.append(row)
        print(
            f"| {row['title']} | {row['parameters'] / 1e6:.1f} | {row['milliseconds']:.0f} | {row['megabytes']} "
            f"| {row.get('miou', '')} | {row.get('source', '')} |",
            flush=True,
        )
    given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
