"""Predictions as annotations that a person corrects in a tool: LabelMe's files, and COCO's for CVAT and others.

The background, a class of that name, is not drawn: it is where nothing else is. `data.labelme` and `data.coco` read
both back, by `atrous data convert`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.annotations import BACKGROUND_NAMES
from atrous.errors import InputError, choose
from atrous.polygons import Polygon, find_polygons
from atrous.replacing import write_text

FORMATS = ("coco", "labelme")
LABELME_VERSION = "5.5.0"  # whose files these are like
COCO_FILE = "annotations.json"


@dataclass(frozen=True)
class PolygonOptions:
    """format: "coco" or "labelme". simplify, min_area: see `find_polygons`. InputError for what cannot be."""

    format: str
    simplify: float = 0.75
    min_area: int = 64

    def __post_init__(self) -> None:
        choose("format of polygons", self.format, FORMATS)
        if not 0 <= self.simplify < float("inf"):
            raise InputError(f"simplify: wanted pixels >= 0, got {self.simplify}")
        if self.min_area < 0:
            raise InputError(f"min_area: wanted pixels >= 0, got {self.min_area}")


def annotate(
    labels: NDArray[Any],
    probabilities: NDArray[np.float32],
    names: Sequence[str],
    picture: str,
    options: PolygonOptions,
) -> dict[str, Any]:
    """What is written for a picture, as plain JSON values: a LabelMe file, or its part of a COCO file.

    labels: (H, W); probabilities: (C, H, W). picture: its file, as the annotations are to name it.
    """
    confidence = np.take_along_axis(probabilities, labels[None].astype(np.int64), axis=0)[0]
    found = [
        polygon
        for polygon in find_polygons(labels, confidence, options.simplify, options.min_area)
        if names[polygon.label].lower() not in BACKGROUND_NAMES
    ]
    height, width = labels.shape
    if options.format == "labelme":
        return labelme_file(found, names, picture, (height, width))
    return {
        "image": {"file_name": picture, "height": height, "width": width},
        "annotations": [coco_annotation(polygon, names, (height, width)) for polygon in found],
    }


def labelme_file(
    polygons: Iterable[Polygon], names: Sequence[str], picture: str, size: tuple[int, int]
) -> dict[str, Any]:
    """LabelMe has no holes: they are joined to the outline. area and score are kept by LabelMe beside its own."""
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [
            {
                "label": names[polygon.label],
                "points": polygon.joined().tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
                "area": polygon.area,
                "score": None if polygon.score is None else round(polygon.score, 4),
            }
            for polygon in polygons
        ],
        "imagePath": picture,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def coco_annotation(polygon: Polygon, names: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
    """COCO's polygons are parts that add up, so that one with holes is written as run lengths down the columns."""
    segmentation: Any = [polygon.outline.astype(int).ravel().tolist()]
    area = polygon.area
    if polygon.holes:
        cover = polygon.cover(*size)
        segmentation, area = {"size": list(size), "counts": run_lengths(cover)}, float(cover.sum())
    return {
        "category_id": category_ids(names)[polygon.label],
        "segmentation": segmentation,
        "area": area,
        "bbox": list(polygon.box),
        "iscrowd": 0,
        "score": None if polygon.score is None else round(polygon.score, 4),
    }


def run_lengths(cover: NDArray[np.bool_]) -> list[int]:
    """The lengths of runs of 0, 1, 0, ... down the columns of (H, W) bool; `data.shapes.decode_runs` reads them."""
    flat = np.concatenate([[False], cover.ravel(order="F")])  # begins with zeros, be they none
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *changes.tolist(), cover.size]).tolist()


def category_ids(names: Sequence[str]) -> dict[int, int]:
    """{class: COCO's id}, from 1 on: the class's own number where 0 is the background, as `data convert` has it."""
    first = 0 if names[0].lower() in BACKGROUND_NAMES else 1
    return {
        number: number + first for number, name in enumerate(names) if name.lower() not in BACKGROUND_NAMES
    }


def coco_file(parts: Iterable[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """One COCO file of the parts of all pictures, which are numbered in their order."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, part in enumerate(parts, start=1):
        images.append({"id": number, **part["image"]})
        for annotation in part["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    categories = [{"id": id, "name": names[number]} for number, id in category_ids(names).items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def part_file(folder: Path, name: str, options: PolygonOptions) -> Path:
    """Where the annotations of one picture are written."""
    if options.format == "labelme":
        return folder / f"{name}.json"
    return folder / ".annotations" / f"{name}.part"


def picture_name(folder: Path, name: str, picture: Path, options: PolygonOptions) -> str:
    """How annotations name a picture: LabelMe from where its file lies, COCO from the pictures' folder."""
    if options.format == "labelme":
        return Path(os.path.relpath(picture, (folder / name).parent)).as_posix()
    return (Path(name).parent / picture.name).as_posix()


def join_parts(folder: Path, pictures: Iterable[str], names: Sequence[str]) -> Path:
    """Write annotations.json, COCO's file of those `pictures` that have a part in the folder."""
    options = PolygonOptions("coco")
    files = [part_file(folder, name, options) for name in pictures]
    parts = (json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file())
    target = folder / COCO_FILE
    write_text(target, json.dumps(coco_file(parts, names)))
    return target


def refuse_joined(folder: Path) -> None:
    """InputError where annotations.json exists already."""
    if (path := folder / COCO_FILE).exists():
        raise InputError(f"{path}: exists already; give another --out, or --overwrite")
