"""The row of pictures in the README: a scene, DeepLab v1, v1 with the dense CRF, v3+, and the truth.

    python examples/papers_row.py V1.safetensors V3PLUS.safetensors [PICTURE]

Both were trained on the drawn scenes, from scratch, with the same backbone, crops and steps:

    atrous train scenes --recipe scenes --model deeplab_v1 --model_options '{}' --loss_at logits --out runs/v1
    atrous train scenes --recipe scenes --out runs/v3plus

Writes PICTURE (docs/images/papers.jpg) and prints the mean IoU of each column over the whole test split.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from atrous import Predictor, evaluate, open_dataset
from atrous.data import SCENES
from atrous.visualize import colourize, panel

SHOWN = (3, 14)  # scenes of the test split
SCALE = 3  # the scenes are small: their pixels are drawn larger


def main(v1: str, v3plus: str, target: Path) -> None:
    test = open_dataset("scenes", split="test")
    columns = {
        "DeepLab v1": Predictor(v1),
        "v1 + dense CRF": Predictor(v1, crf=True),
        "DeepLab v3+": Predictor(v3plus),
    }
    scores = {name: evaluate(predictor, test).miou for name, predictor in columns.items()}
    print(", ".join(f"{name} {score:.3f}" for name, score in scores.items()), f"({len(test)} scenes)")
    rows = []
    for index in SHOWN:
        image, truth = test.arrays(index)
        found = [colourize(predictor.predict(image).labels, SCENES) for predictor in columns.values()]
        rows.append([larger(cell) for cell in (image, *found, colourize(truth, SCENES))])
    titles = [f"{name}: {score:.2f}" for name, score in scores.items()]
    Image.fromarray(panel(rows, ["unseen scene", *titles, "truth"], SCENES, height=168)).save(
        target, quality=88
    )


def larger(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3] if len(sys.argv) > 3 else "docs/images/papers.jpg"))
