"""Scores over scales and flips, and by windows: `Predictor` beside the loop that people write, with the same network.

    python benchmarks/protocols.py [--classes 21 150] [--size 512 683] [--rounds 3] [--threads 2]

Theirs interpolates logits to the view's size, takes the softmax, turns a flipped one back, interpolates to the
picture's size and adds. The network is DeepLab v3+ on MobileNetV2, and a pooled 1x1 convolution that costs next to
nothing, so that what is around a network is seen alone. Printed are the seconds, the peak memory beyond what was held
before, of a process of its own, and the largest difference of a probability.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import torch
import torch.nn.functional as F
from large import Cheap
from torch import Tensor, nn
from upsampling import memory, seconds, start_peak

from atrous import create_model
from atrous.predict import Predictor
from atrous.tiling import window_starts

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # v3 sec. 4.1
WINDOW = (473, 473)  # PSPNet, ADE20K
PROTOCOLS: dict[str, dict[str, Any]] = {
    "one view": {},
    "6 scales, flip": {"scales": SCALES, "flip": True},
    "windows": {"mode": "slide", "size": WINDOW},
}


def network(name: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return Cheap(classes) if name == "cheap" else create_model("deeplab_v3plus", name, num_classes=classes)


@torch.inference_mode()
def by_hand(predictor: Predictor, image: Tensor) -> Tensor:
    """(3, H, W) uint8 to probabilities (C, H, W), with the predictor's own network."""
    x = (image[None].float() / 255 - predictor.mean) / predictor.std
    protocol, size = predictor.protocol, x.shape[-2:]
    if protocol.mode == "slide":
        return windows(predictor, x)[0]
    total: Any = 0
    for scale in protocol.scales:
        scaled = size if scale == 1 else [round(side * scale) for side in size]
        view = x if scale == 1 else F.interpolate(x, scaled, mode="bilinear", antialias=True)
        for flipped in (False, True) if protocol.flip else (False,):
            one = view.flip(-1) if flipped else view
            stride = predictor.output_stride
            padded = F.pad(one, (0, -one.shape[-1] % stride, 0, -one.shape[-2] % stride))
            scores = forward(predictor, padded)[..., : one.shape[-2], : one.shape[-1]]
            scores = scores.flip(-1) if flipped else scores
            total = total + F.interpolate(scores, size, mode="bilinear")
    return (total / protocol.views)[0]


def windows(predictor: Predictor, x: Tensor) -> Tensor:
    (height, width), overlap = WINDOW, predictor.protocol.overlap
    count = torch.zeros(x.shape[-2:])
    total = torch.zeros(1, len(predictor.labels), *x.shape[-2:])
    for top in window_starts(x.shape[-2], height, overlap):
        for left in window_starts(x.shape[-1], width, overlap):
            here = (..., slice(top, top + height), slice(left, left + width))
            total[here] += forward(predictor, x[here])
            count[here] += 1
    return total / count


def forward(predictor: Predictor, x: Tensor) -> Tensor:
    scores = predictor.model.scores(x.contiguous(memory_format=torch.channels_last))["out"]
    return F.interpolate(scores, x.shape[-2:], mode="bilinear").softmax(1)


def child(side: str, name: str, classes: int, protocol: str, image: Tensor) -> None:
    predictor = Predictor(network(name, classes), device="cpu", **PROTOCOLS[protocol])
    small = Predictor(predictor.model, device="cpu", runtime="eager", scales=(1.0, 0.5))
    small.scores(image[:, :65, :65])  # what is loaded once
    held = memory("VmRSS")
    start_peak()
    predictor.scores(image) if side == "ours" else by_hand(predictor, image)
    print(json.dumps(memory("VmHWM") - held))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["cheap", "mobilenet_v2"])
    parser.add_argument("--classes", type=int, nargs="+", default=[21, 150])
    parser.add_argument("--size", type=int, nargs=2, default=[512, 683])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, *given.size), dtype=torch.uint8)
    if given.child:
        side, name, classes, protocol = given.child
        child(side, name, int(classes), protocol, image)
        return
    for name in given.networks:
        for classes in given.classes:
            for protocol, options in PROTOCOLS.items():
                compare(
                    Predictor(network(name, classes), device="cpu", **options), image, given.rounds, protocol
                )


def compare(predictor: Predictor, image: Tensor, rounds: int, protocol: str) -> None:
    sides = {"ours": lambda: predictor.scores(image), "theirs": lambda: by_hand(predictor, image)}
    worst = float((sides["ours"]() - sides["theirs"]()).abs().max())
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, f in sides.items():
            taken[side].append(seconds(f))
    a, b = (statistics.median(taken[side]) for side in ("theirs", "ours"))
    name, classes = predictor.model.config.backbone, len(predictor.labels)
    name = "cheap" if name == "none" else name
    words = ["--size", *map(str, image.shape[1:]), "--threads", str(torch.get_num_threads())]
    mine, their = (
        float(
            subprocess.run(
                [sys.executable, __file__, *words, "--child", side, name, str(classes), protocol],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for side in ("ours", "theirs")
    )
    print(
        f"{name:12s} C={classes:<3d} {protocol:14s} {a * 1e3:6.0f} -> {b * 1e3:5.0f} ms {a / b:4.1f}x   "
        f"{their:5.0f} -> {mine:5.0f} MB   differ by {worst:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
