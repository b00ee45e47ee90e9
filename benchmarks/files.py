"""JPEG files in, PNG files out: torchvision's script-style loop and ours, with the same weights from a file.

    python benchmarks/files.py PHOTOS [--model v3_resnet50] [--count 50] [--rounds 3] [--threads 2]
                                      [--sides theirs torch auto "auto bf16"]

Each side runs in a process of its own, in turns; its seconds, its peak memory, and the labels that differ are printed.
The first round of a runtime that converts pays for that. torchvision comes first and has no round to warm up: compare
the later rounds too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import atrous
from atrous.data.pictures import read_image
from atrous.predict import Predictor, Segmentation
from atrous.results import index_png
from atrous.stream import ahead

# what only one side needs is imported by that side: it takes memory


def their_script(weights: Path, photos: list[Path], out: Path) -> None:
    """The loop of torchvision's documentation."""
    from inference import MODELS
    from torchvision.transforms import functional

    theirs = MODELS[weights.stem][1]()
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


def our_files(checkpoint: Path, photos: list[Path], out: Path, way: str) -> None:
    runtime, _, precision = way.partition(" ")
    predictor = Predictor(
        checkpoint, device="cpu", runtime=runtime, precision=precision or "fp32", pictures=len(photos)
    )

    def write(photo: Path, result: Segmentation) -> None:
        index_png(result).save(out / f"{photo.stem}.png")

    with ThreadPoolExecutor(1) as writer:
        writings = [
            writer.submit(write, photo, predictor.predict(reading.result()))
            for photo, reading in ahead(read_image, photos, 1, 2)
        ]
    for writing in writings:
        writing.result()


def child(given: argparse.Namespace) -> None:
    """One side in a process of its own. Building the model counts, the imports of Python do not."""
    photos = sorted(Path(given.photos).glob("*.jpg"))[: given.count]
    folder, out = Path(given.child[1]), Path(given.child[2])
    start = time.perf_counter()
    if given.child[0] == "theirs":
        their_script(folder / f"{given.model}.pth", photos, out)
    else:
        our_files(folder / f"{given.model}.safetensors", photos, out, given.child[0])
    taken = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(json.dumps({"seconds": taken, "megabytes": peak, "photos": len(photos)}))


def compare(given: argparse.Namespace) -> None:
    from inference import pair

    sides = given.sides
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = pair(given.model)
        torch.save(theirs.state_dict(), Path(folder) / f"{given.model}.pth")
        atrous.save(ours, Path(folder) / f"{given.model}.safetensors")
        del theirs, ours
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        os.environ["XDG_CACHE_HOME"] = folder  # of the conversions: the first round makes them
        for _ in range(given.rounds):
            for side in sides:
                out = Path(folder) / side
                out.mkdir(exist_ok=True)
                command = [sys.executable, __file__, "--child", side, folder, str(out), given.photos]
                command += [
                    "--model",
                    given.model,
                    "--count",
                    str(given.count),
                    "--threads",
                    str(given.threads),
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{side}: {found[side][-1]}", file=sys.stderr, flush=True)
        base = statistics.median(run["seconds"] for run in found["theirs"])
        for side, runs in found.items():
            taken = statistics.median(run["seconds"] for run in runs)
            rounds = " ".join(f"{run['seconds']:.2f}" for run in runs)
            peak = max(run["megabytes"] for run in runs)
            other, pixels = different_labels(Path(folder) / "theirs", Path(folder) / side)
            print(
                f"{side:12s} {taken:7.2f} s ({rounds}) for {runs[0]['photos']} photos   {base / taken:5.2f}x   "
                f"peak {peak:6.0f} MB   {other} of {pixels} labels differ"
            )


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
    parser.add_argument("--sides", nargs="+", default=["theirs", "torch", "auto", "auto bf16"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.child:
        child(given)
    else:
        compare(given)


if __name__ == "__main__":
    main()
