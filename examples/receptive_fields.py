"""The picture and the numbers of docs/receptive.md: what the score at the centre depends on, paper by paper.

    python examples/receptive_fields.py [FILE] [SIDE] [PICTURES]

The five papers with random weights on one backbone, MobileNetV2, and the trained model of the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import atrous
from atrous import terminal
from atrous.config import Normalization
from atrous.heat_map import STRIP, field_map
from atrous.models import MODELS
from atrous.receptive import measure, newly_initialised, normalised, table
from atrous.visualize import panel

BACKBONE, HEIGHT, COLUMNS = "mobilenet_v2", 270, 3


def main(target: Path, side: int, count: int) -> None:
    scenes = atrous.open_dataset("scenes", split="test", size=(side, side), length=count)
    pictures = normalised([scenes.image(i) for i in range(count)], Normalization())
    about = f"{count} pictures of {side}x{side}, drawn scenes"
    titles, maps = [], []

    def show(name: str, model: atrous.models.Model, weights: str) -> None:
        fields = measure(model, pictures, weights)
        terminal.say(table(fields, f"{name} {model.config.backbone}", about))
        field = fields[0]
        titles.append(f"{name}, {weights}: {field.effective} px")
        maps.append(
            field_map(field.gradient, field.centre, field.deepest, field.effective, HEIGHT, field.pools)
        )

    for name in MODELS:
        config = atrous.create_model(name, BACKBONE).config
        show(name, newly_initialised(config, pictures), "random")
    show("box", atrous.load("box"), "trained")
    rows = [slice(i, i + COLUMNS) for i in range(0, len(maps), COLUMNS)]
    sheet = np.vstack([panel([maps[row]], titles[row], height=HEIGHT + STRIP) for row in rows])
    Image.fromarray(sheet).save(target, quality=85)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        Path(words[0] if words else "docs/images/receptive.jpg"),
        int(words[1]) if len(words) > 1 else 1153,
        int(words[2]) if len(words) > 2 else 2,
    )
