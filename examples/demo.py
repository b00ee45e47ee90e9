"""The main job from end to end on the built-in drawn scenes: train, evaluate, predict, refine, and a picture of it all.

    python examples/demo.py [FOLDER]

Takes about four minutes on two CPU cores and leaves everything in FOLDER (default: demo).
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atrous.cli import main as atrous
from atrous.data import SCENES, open_dataset
from atrous.visualize import colourize, overlay, panel

SHOWN = (3, 11, 14, 27)  # scenes of the test split, which training never sees


def run(command: str) -> None:
    print(f"\n$ {command}", flush=True)
    atrous(shlex.split(command)[1:])


def main(folder: Path) -> None:
    started = time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)
    run(f"atrous train scenes --recipe recipes/scenes.yaml --out {folder}/run")
    checkpoint = folder / "run" / "best.safetensors"
    run(f"atrous evaluate {checkpoint} scenes --split test")
    plain = scores(folder)
    run(f"atrous evaluate {checkpoint} scenes --split test --crf")
    refined = scores(folder)

    test = open_dataset("scenes", split="test")
    (folder / "pictures").mkdir()
    for index in SHOWN:
        Image.fromarray(test.image(index)).save(folder / "pictures" / f"{index:03d}.png")
    run(f"atrous predict {checkpoint} {folder}/pictures --out {folder}/predictions")
    run(f"atrous predict {checkpoint} {folder}/pictures --out {folder}/refined --crf")

    rows = []
    for index in SHOWN:
        image, truth = test.arrays(index)
        found = [
            np.asarray(Image.open(folder / kind / f"{index:03d}.png")) for kind in ("predictions", "refined")
        ]
        rows.append(
            [
                image,
                *(colourize(labels, SCENES) for labels in (truth, *found)),
                overlay(image, found[-1], SCENES),
            ]
        )
    titles = ("unseen scene", "truth", "prediction", "with dense CRF", "over the scene")
    Image.fromarray(panel(rows, titles, SCENES)).save(folder / "panel.png")

    print(
        f"\nDone in {time.monotonic() - started:.0f} s. On {plain['pictures']} unseen scenes: mean IoU "
        f"{plain['miou']:.3f}, with the dense CRF {refined['miou']:.3f}; pixel accuracy "
        f"{plain['pixel_accuracy']:.3f} and {refined['pixel_accuracy']:.3f}.\n"
        f"Look at {folder / 'panel.png'}, and at the training curve in {folder / 'run' / 'log.csv'}."
    )


def scores(folder: Path) -> dict[str, Any]:
    """What the last `atrous evaluate` wrote."""
    found: dict[str, Any] = json.loads((folder / "run" / "best_test.json").read_text())
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
