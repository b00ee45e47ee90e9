"""LabelMe's files (https://github.com/wkentaro/labelme): one JSON beside each picture.

{"imagePath": "a.jpg", "imageHeight": 480, "imageWidth": 640, "imageData": base64 or null,
 "shapes": [{"label": "cat", "shape_type": "polygon", "points": [[x, y], ...]}, ...]}

Later shapes lie over earlier ones, as LabelMe itself draws them.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atrous.data.annotations import Annotations, Picture, find_picture, read_json
from atrous.data.pictures import IMAGE_SUFFIXES
from atrous.data.shapes import Region, box, ellipse, read_points, read_polygon
from atrous.errors import InputError

WITHOUT_AREA = {"line": "lines", "linestrip": "lines", "point": "points", "points": "points"}


def is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(root: Path, files: Sequence[Path], images: Path | None = None) -> Annotations:
    """Read LabelMe files below `root`. images: the pictures' folder; by default beside each file."""
    found = Annotations("LabelMe")
    labels: set[str] = set()
    for path in files:
        try:
            content = read_json(path)
        except InputError as error:
            found.problems.append(str(error))
            continue
        if not is_labelme(content):
            found.problems.append(f"{path}: not a LabelMe file: it has no shapes and imagePath")
            continue
        shapes = []
        for place, shape in enumerate(content["shapes"]):
            kind = str(shape.get("shape_type") or "polygon") if isinstance(shape, dict) else None
            if kind is None or "label" not in shape:
                found.problems.append(f"{path}: shape {place}: no label")
            elif kind in WITHOUT_AREA:
                found.left_out[WITHOUT_AREA[kind]] += 1
            else:
                labels.add(str(shape["label"]))
                shapes.append((place, str(shape["label"]), kind, shape.get("points"), shape.get("mask")))
        file = _picture(path, str(content["imagePath"]), images)
        embedded = path if file is None and content.get("imageData") else None
        if file is None and embedded is None:
            found.problems.append(
                f"{path}: its picture {content['imagePath']} was not found, and is not in it"
            )
            continue
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        name = path.relative_to(root).with_suffix(".jpg").as_posix()
        found.pictures.append(Picture(name, file, partial(_regions, shapes), size, embedded))
    found.labels = sorted(labels)
    return found


def embedded_picture(path: Path) -> bytes:
    """The picture inside a LabelMe file, as its tool read it."""
    try:
        return base64.b64decode(read_json(path)["imageData"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"{path}: imageData is damaged ({error})") from None


def _picture(path: Path, name: str, images: Path | None) -> Path | None:
    folders = [images] if images else [path.parent]
    names = [name, name.replace("\\", "/").split("/")[-1], *[path.stem + suffix for suffix in IMAGE_SUFFIXES]]
    return next((file for option in names if (file := find_picture(option, folders)) is not None), None)


def _regions(shapes: list[tuple[int, str, str, Any, Any]]) -> list[Region]:
    regions = []
    for place, label, kind, values, mask in shapes:
        try:
            regions.append(_region(label, kind, values, mask))
        except (ValueError, OSError, TypeError, OverflowError) as error:
            raise ValueError(f"shape {place} ({label}): {error}") from None
    return regions


def _region(label: str, kind: str, values: Any, mask: Any) -> Region:
    if kind in ("polygon", "oriented_rectangle"):
        return Region(label, [read_polygon(values)])
    points = read_points(values)
    if kind == "rectangle" and len(points) == 4:
        return Region(label, [points])
    if kind in ("rectangle", "circle") and len(points) != 2:
        raise ValueError(f"a {kind} of {len(points)} points")
    if kind == "rectangle":
        return Region(label, [box(*points.ravel())])
    if kind == "circle":  # the centre, and a point on the rim
        (x, y), rim = points
        radius = float(np.hypot(*(rim - points[0])))
        return Region(label, [ellipse(x, y, radius, radius)])
    if kind == "mask" and isinstance(mask, str) and len(points):
        return Region(label, patch=_patch(mask), corner=(int(points[0, 0]), int(points[0, 1])))
    raise ValueError(f"a shape of the kind {kind!r}")


def _patch(text: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            return np.asarray(picture.convert("L")) > 0
    except Exception as error:  # Pillow's readers raise nearly anything on damage
        raise ValueError(f"a mask that is no picture ({error})") from None
