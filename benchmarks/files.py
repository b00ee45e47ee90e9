"""JPEG files in, PNG files out: the script-style loop of torchvision and ours, with the same weights from a file.

    python benchmarks/files.py PHOTOS [--model v3_resnet50] [--count 50] [--rounds 3] [--threads 2]
                                      [--sides theirs torch auto "auto bf16" command]

Each side is a process of its own, in turns. Printed are the seconds of the whole process, from the start of Python to
the last file; those of the loop, with the model's building and without imports; the peak memory; and the labels that
differ. "torch", "auto bf16", ...: `Predictor` with that runtime and precision, in a loop like theirs. "command":
`atrous predict`, which also makes an overlay of every photo. torchvision comes first and has no round to warm up, and
the first round of a runtime that converts pays for that: compare the later rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Run(NamedTuple):
    """loop: seconds, 0 for the command, which does not say."""

    seconds: float
    loop: float
    megabytes: float


def their_script(weights: Path, photos: list[Path], out: Path) -> None:
    """The loop of torchvision's documentation."""
    import torch
    from torchvision.models import segmentation
    from torchvision.transforms import functional

    start = time.perf_counter()
    name = {"v3_resnet50": "deeplabv3_resnet50", "v3_mobilenet_v3": "deeplabv3_mobilenet_v3_large"}[
        weights.stem
    ]
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    theirs.eval()
    palette = np.random.default_rng(0).integers(0, 256, 21 * 3).tolist()
    for photo in photos:
        x = functional.to_tensor(Image.open(photo).convert("RGB"))
        x = functional.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        with torch.no_grad():
            labels = theirs(x[None])["out"][0].argmax(0)
        picture = Image.fromarray(labels.byte().numpy())
        picture.putpalette(palette)
        picture.save(out / f"{photo.stem}.png")
    print(time.perf_counter() - start)


def our_script(checkpoint: Path, photos: list[Path], out: Path, way: str) -> None:
    """The same with ours, a file being written while the next photo passes the network."""
    from concurrent.futures import ThreadPoolExecutor

    from atrous.allocator import keep_freed_memory
    from atrous.data.pictures import read_image
    from atrous.predict import Predictor
    from atrous.results import index_png

    start = time.perf_counter()
    keep_freed_memory()  # as the command does
    runtime, _, precision = way.partition(" ")
    predictor = Predictor(
        checkpoint, device="cpu", runtime=runtime, precision=precision or "fp32", pictures=len(photos)
    )
    with ThreadPoolExecutor(1) as writer:
        writings = []
        for photo in photos:
            picture = index_png(predictor.predict(read_image(photo)))
            writings.append(writer.submit(picture.save, out / f"{photo.stem}.png"))
    for writing in writings:
        writing.result()
    print(time.perf_counter() - start)


def chosen(given: argparse.Namespace) -> list[Path]:
    return sorted(Path(given.photos).glob("*.jpg"))[: given.count]


def command(given: argparse.Namespace, side: str, folder: Path) -> list[str]:
    """What runs one side: it reads its weights from `folder`, and writes to `folder`/SIDE."""
    out = folder / side
    out.mkdir(exist_ok=True)
    if side != "command":
        words = [__file__, given.photos, "--model", given.model, "--count", str(given.count)]
        return [sys.executable, *words, "--child", side, str(folder)]
    words = [
        "predict",
        str(folder / f"{given.model}.safetensors"),
        *map(str, chosen(given)),
        "--out",
        str(out),
    ]
    return [sys.executable, "-m", "atrous", *words, "--overwrite", "--device", "cpu"]


def run(words: list[str], environment: dict[str, str]) -> Run:
    start = time.perf_counter()
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"failed: {' '.join(words)}")
    loop = 0.0 if "atrous" in words else float(said.splitlines()[-1])
    return Run(taken, loop, used.ru_maxrss / 1024)  # kilobytes on Linux


def compare(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(given.model, folder)
        # of the conversions: the first round makes them
        environment = os.environ | {"XDG_CACHE_HOME": name, "OMP_NUM_THREADS": str(given.threads)}
        found: dict[str, list[Run]] = {side: [] for side in given.sides}
        for _ in range(given.rounds):
            for side in given.sides:
                found[side].append(run(command(given, side, folder), environment))
                print(f"{side}: {found[side][-1]}", file=sys.stderr, flush=True)
        whole, loops = (
            {side: statistics.median(getattr(one, what) for one in runs) for side, runs in found.items()}
            for what in ("seconds", "loop")
        )
        for side, runs in found.items():
            loop = f"loop {loops[side]:6.2f} s {loops['theirs'] / loops[side]:5.2f}x" if loops[side] else ""
            peaks = " ".join(f"{one.megabytes:.0f}" for one in runs)
            other, pixels = different_labels(folder / "theirs", folder / side)
            print(
                f"{side:12s} {whole[side]:6.2f} s {whole['theirs'] / whole[side]:5.2f}x   {loop:22s}   "
                f"peaks {peaks} MB   {other / pixels:.2%} of the labels differ"
            )


def write_weights(model: str, folder: Path) -> None:
    import torch
    from inference import pair

    import atrous

    theirs, ours = pair(model)
    torch.save(theirs.state_dict(), folder / f"{model}.pth")
    atrous.save(ours, folder / f"{model}.safetensors")


def different_labels(theirs: Path, ours: Path) -> tuple[int, int]:
    other = pixels = 0
    for path in sorted(theirs.glob("*.png")):
        a, b = np.asarray(Image.open(path)), np.asarray(Image.open(ours / path.name))
        other, pixels = other + int((a != b).sum()), pixels + a.size
    return other, pixels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", help="folder of photos (.jpg)")
    parser.add_argument("--model", default="v3_resnet50", choices=("v3_resnet50", "v3_mobilenet_v3"))
    parser.add_argument("--count", type=int, default=50, help="of the photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=["theirs", "torch", "auto", "auto bf16", "command"])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        side, folder = given.child[0], Path(given.child[1])
        if side == "theirs":
            their_script(folder / f"{given.model}.pth", chosen(given), folder / side)
        else:
            our_script(folder / f"{given.model}.safetensors", chosen(given), folder / side, side)
    else:
        compare(given)


if __name__ == "__main__":
    main()
