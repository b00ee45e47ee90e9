"""The model in the box from the run that trained it: measured, in half precision, with the figures of its card.

    atrous train VOCDEVKIT --recipe box --init MOBILENET_V2.tflite --out runs/box
    python examples/make_box.py runs/box/best.safetensors VOCDEVKIT

Writes src/atrous/box/model.safetensors, and the figures into CARD.md beside it.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from atrous.checkpoint import BOX_FILE, load, metadata_of, save
from atrous.config import Protocol, to_dict
from atrous.data import SegmentationDataset, open_dataset
from atrous.evaluation import evaluate
from atrous.metrics import Metrics
from atrous.predict import Predictor

SIX = ("cat", "cow", "dog", "horse", "person", "sheep")  # the others are on a handful of the pictures of val
CARD = BOX_FILE.parent / "CARD.md"
MARKS = ("<!-- figures -->\n", "<!-- end of figures -->\n")
PROTOCOLS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "three scales and flip": {"scales": (0.75, 1.0, 1.25), "flip": True},
    "with the dense CRF": {"crf": {}},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("data", help="VOCdevkit")
    parser.add_argument("--longer_side", type=int, default=448, help="of photos, when they are segmented")
    given = parser.parse_args()

    model = load(given.checkpoint)
    metadata = metadata_of(model)
    metadata.protocol = Protocol(longer_side=given.longer_side)
    metadata.recipe |= {"data": "VOCdevkit", "init": "MobileNetV2, ImageNet", "out": None}
    save(model, BOX_FILE, metadata, torch.float16)

    model = load(BOX_FILE)  # what people get is what is measured
    val = open_dataset(given.data, "val", "voc", classes=list(metadata.labels.names[1:]))
    found: dict[str, Metrics] = {}
    for name, options in PROTOCOLS.items():
        predictor = Predictor(model, **options)
        found[f"{name}: {predictor.protocol}"] = evaluate(predictor, val)
    plain = next(iter(found.values()))
    scores = plain.to_dict()
    del scores["confusion"]
    metadata.scores = {**scores, "split": "val", "protocol": to_dict(metadata.protocol)}
    save(model, BOX_FILE, metadata, torch.float16)

    before, rest = CARD.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    table = f"{of_protocols(found)}\n{of_classes(plain, val)}"
    CARD.write_text(before + MARKS[0] + table + MARKS[1] + after, encoding="utf-8")
    print(f"{table}{BOX_FILE}: {BOX_FILE.stat().st_size / 1e6:.1f} MB")


def of_protocols(found: dict[str, Metrics]) -> str:
    rows = ["| protocol | six | mean IoU | pixel accuracy |", "|---|---:|---:|---:|"]
    for name, metrics in found.items():
        six = [metrics.per_class_iou[metrics.names.index(c)] or 0.0 for c in SIX]
        rows.append(f"| {name} | {np.mean(six):.3f} | {metrics.miou:.3f} | {metrics.pixel_accuracy:.3f} |")
    return "\n".join(rows) + "\n"


def of_classes(metrics: Metrics, val: SegmentationDataset) -> str:
    shown = sum(np.bincount(val.mask(i).ravel(), minlength=256) > 0 for i in range(len(val)))
    rows = ["| class | IoU | pictures that show it |", "|---|---:|---:|"]
    for number, (name, iou) in enumerate(zip(metrics.names, metrics.per_class_iou, strict=True)):
        rows.append(f"| {name} | {'absent' if iou is None else f'{iou:.3f}'} | {shown[number]} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
