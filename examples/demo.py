"""First two photos, segmented by the model in the box; then the main job from end to end on the built-in drawn scenes:
train, evaluate, predict, refine. A picture of each.

    python examples/demo.py [FOLDER]

Takes about two minutes on two CPU cores and leaves everything in FOLDER (default: demo), which it makes.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atrous.checkpoint import load, metadata_of
from atrous.cli import main as atrous
from atrous.data import SCENES, Labels, open_dataset, read_image
from atrous.verbs.parser import complain
from atrous.visualize import colourize, overlay, panel

PHOTOS = ("chelsea.png", "astronaut.png")  # that scikit-image carries: a cat; Eileen Collins, by NASA
SHOWN = (3, 11, 14, 27)  # scenes of the test split, which training never sees


def run(command: str) -> None:
    print(f"\n$ {command}", flush=True)
    atrous(shlex.split(command)[1:])


def main(folder: Path) -> None:
    started = time.monotonic()
    if folder.exists():
        sys.exit(complain(f"{folder}: exists already; give the demo another folder, or remove it"))
    segment_photos(folder)
    run(f"atrous train scenes --recipe scenes --out {folder}/run")
    checkpoint = folder / "run" / "best.safetensors"
    run(f"atrous evaluate {checkpoint} scenes --split test")
    run(f"atrous evaluate {checkpoint} scenes --split test --crf --json {folder}/run/crf_test.json")
    plain, refined = (
        json.loads((folder / "run" / f"{kind}_test.json").read_text()) for kind in ("best", "crf")
    )

    test = open_dataset("scenes", split="test")
    (folder / "pictures").mkdir()
    for index in SHOWN:
        Image.fromarray(test.image(index)).save(folder / "pictures" / f"{index:03d}.png")
    run(f"atrous predict {checkpoint} {folder}/pictures --out {folder}/predictions")
    run(f"atrous predict {checkpoint} {folder}/pictures --out {folder}/refined --crf")

    rows = []
    for index in SHOWN:
        image, truth = test.arrays(index)
        found = [labels_of(folder / kind / f"{index:03d}.png") for kind in ("predictions", "refined")]
        rows.append(
            [
                image,
                *(colourize(labels, SCENES) for labels in (truth, *found)),
                overlay(image, found[-1], SCENES),
            ]
        )
    titles = ("unseen scene", "truth", "prediction", "with dense CRF", "over the scene")
    save_panel(folder / "panel.png", rows, titles, SCENES)

    print(
        f"\nDone in {time.monotonic() - started:.0f} s. On {plain['pictures']} unseen scenes: mean IoU "
        f"{plain['miou']:.3f}, with the dense CRF {refined['miou']:.3f}; pixel accuracy "
        f"{plain['pixel_accuracy']:.3f} and {refined['pixel_accuracy']:.3f}.\n"
        f"Look at {folder / 'photos.png'} and {folder / 'panel.png'}; the training curve is in "
        f"{folder / 'run' / 'log.csv'}."
    )


def segment_photos(folder: Path) -> None:
    """Two photos by the model that the package brings, as it comes and with the CRF."""
    found = importlib.util.find_spec("skimage")
    assert found is not None and found.origin is not None, "pip install '.[dev]' brings scikit-image's photos"
    (folder / "photos").mkdir(parents=True)
    for name in PHOTOS:
        shutil.copy(Path(found.origin).parent / "data" / name, folder / "photos")
    run(f"atrous predict {folder}/photos --out {folder}/photos_segmented")
    run(f"atrous predict {folder}/photos --out {folder}/photos_refined --crf")
    labels = metadata_of(load()).labels
    rows, seen = [], set[int]()
    for path in sorted((folder / "photos").iterdir()):
        image = read_image(path)
        plain, refined = (
            labels_of(folder / kind / f"{path.stem}.png") for kind in ("photos_segmented", "photos_refined")
        )
        seen |= set(np.unique(plain)) | set(np.unique(refined))
        rows.append(
            [image, colourize(plain, labels), colourize(refined, labels), overlay(image, refined, labels)]
        )
    titles = ("photo", "model in the box", "with dense CRF", "over the photo")
    save_panel(folder / "photos.png", rows, titles, labels, sorted(seen))


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def save_panel(
    path: Path, rows: list[list[Any]], titles: tuple[str, ...], labels: Labels, used: list[int] | None = None
) -> None:
    Image.fromarray(panel(rows, titles, labels, used)).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
