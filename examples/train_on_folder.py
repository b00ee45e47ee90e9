"""Train on a folder with images/ and masks/ from Python, measure, and write one prediction.

python examples/train_on_folder.py FOLDER [RUN] [ITERATIONS]
"""

import dataclasses
import sys
from pathlib import Path

from PIL import Image

import atrous
from atrous.config import read_recipe
from atrous.train import train

folder, *rest = sys.argv[1:]
out = rest[0] if rest else "runs/example"
recipe = dataclasses.replace(
    read_recipe("quick"),  # any recipe, by name or path; every setting is an attribute
    data=folder,
    out=out,
    iterations=int(rest[1]) if len(rest) > 1 else 500,
    crop_size=129,
    batch_size=4,
    workers=0,
)
train(recipe)

predictor = atrous.Predictor(Path(out) / "best.safetensors")
val = atrous.open_dataset(folder, split="val")
metrics = atrous.evaluate(predictor, val)
print(f"mIoU {metrics.miou:.3f}", dict(zip(metrics.names, metrics.per_class_iou, strict=True)))
Image.fromarray(predictor.predict(val.image(0)).labels).save(Path(out) / "first_of_val.png")
