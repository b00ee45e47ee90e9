"""The pictures of docs/crf_explained.md: what the dense CRF does to the scores of a drawn scene, step by step.

    python examples/crf_pictures.py [FOLDER]

The scores are made from the truth, as a network at a large output stride gives them: blurred, a little wrong, and
noisy. Nothing is trained. Writes crf_steps.jpg, crf_terms.jpg and crf_parameters.jpg, and prints each pixel accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from atrous import DenseCRF, open_dataset
from atrous.data import SCENES
from atrous.visualize import colourize, panel

SCENE, STRIDE, NOISE = 4, 16, 0.9
Probabilities = NDArray[np.float32]


def coarse_scores(truth: NDArray[np.uint8]) -> Probabilities:
    """(C, H, W) probabilities on a grid of STRIDE pixels, resized: the truth, averaged in cells and made unsure."""
    height, width = truth.shape
    share = F.one_hot(torch.from_numpy(truth).long().clamp(max=len(SCENES)), len(SCENES) + 1)
    share = share[..., :-1].permute(2, 0, 1)[None].float()
    cells = F.avg_pool2d(share, STRIDE, ceil_mode=True)
    logits = 3 * cells + NOISE * torch.randn(cells.shape, generator=torch.Generator().manual_seed(0))
    logits = F.interpolate(logits, (height, width), mode="bilinear")
    return logits.softmax(1)[0].numpy()


def main(folder: Path) -> None:
    scenes = open_dataset("scenes", split="test", size=(240, 320))
    image, truth = scenes.arrays(SCENE)
    scores = coarse_scores(truth)

    def cell(name: str, probabilities: Probabilities) -> tuple[str, NDArray[np.uint8]]:
        labels = probabilities.argmax(0)
        known = truth < len(SCENES)
        accuracy = (labels == truth)[known].mean()
        print(f"{name:28} {accuracy:.3f}")
        return f"{name}: {100 * accuracy:.1f} %", colourize(labels, SCENES)

    def sheet(file: str, cells: list[tuple[str, NDArray[np.uint8]]]) -> None:
        titles, pictures = zip(*cells, strict=True)
        Image.fromarray(panel([pictures], titles, height=190)).save(folder / file, quality=88)

    steps = [cell("scores", scores)]
    steps += [cell(f"{n} iteration{'s'[: n > 1]}", DenseCRF(iter_max=n)(image, scores)) for n in (1, 3, 10)]
    sheet("crf_steps.jpg", [("picture", image), *steps])
    sheet(
        "crf_terms.jpg",
        [
            ("truth", colourize(truth, SCENES)),
            cell("smoothness alone", DenseCRF(bi_w=0)(image, scores)),
            cell("appearance alone", DenseCRF(pos_w=0)(image, scores)),
            cell("both", DenseCRF()(image, scores)),
        ],
    )
    sheet(
        "crf_parameters.jpg",
        [
            cell("bi_rgb_std=1", DenseCRF(bi_rgb_std=1)(image, scores)),
            cell("bi_rgb_std=3", DenseCRF(bi_rgb_std=3)(image, scores)),
            cell("bi_rgb_std=13", DenseCRF(bi_rgb_std=13)(image, scores)),
            cell("bi_w=10, bi_xy_std=100", DenseCRF(bi_w=10, bi_xy_std=100)(image, scores)),
        ],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
