"""The main job from end to end on the built-in drawn scenes: train, evaluate, predict, and one picture of it all.

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

    test = open_dataset("scenes", split="test")
    (folder / "pictures").mkdir()
    for index in SHOWN:
        Image.fromarray(test.image(index)).save(folder / "pictures" / f"{index:03d}.png")
    run(f"atrous predict {checkpoint} {folder}/pictures --out {folder}/predictions")

    rows = []
    for index in SHOWN:
        image, truth = test.arrays(index)
        labels = np.asarray(Image.open(folder / "predictions" / f"{index:03d}.png"))
        rows.append(
            [image, colourize(truth, SCENES), colourize(labels, SCENES), overlay(image, labels, SCENES)]
        )
    sheet = panel(rows, ("unseen scene", "truth", "prediction", "over the scene"), SCENES)
    Image.fromarray(sheet).save(folder / "panel.png")

    scores = json.loads((folder / "run" / "best_test.json").read_text())
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Mean IoU {scores['miou']:.3f}, pixel accuracy "
        f"{scores['pixel_accuracy']:.3f} on {scores['pictures']} unseen scenes.\n"
        f"Look at {folder / 'panel.png'}, and at the training curve in {folder / 'run' / 'log.csv'}."
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
