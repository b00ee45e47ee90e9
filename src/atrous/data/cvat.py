"""CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat): one annotations.xml.

<image name="a.jpg" width="640" height="480">
  <polygon label="cat" points="x,y;x,y;..." z_order="0"/>
  <box label="cat" xtl= ytl= xbr= ybr= rotation="degrees"/>     <ellipse label="cat" cx= cy= rx= ry= rotation=/>
  <mask label="cat" rle="3, 5, ..." left= top= width= height=/>  runs along the rows of the box, zeros first

A higher z_order lies on top; within one, later shapes lie over earlier ones.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from atrous.data.annotations import Annotations, Picture, find_picture
from atrous.data.shapes import Region, box, decode_runs, ellipse, read_polygon
from atrous.errors import InputError

WITHOUT_AREA = {"polyline": "lines", "points": "points", "cuboid": "cuboids", "skeleton": "skeletons"}


def read_cvat(path: Path, images: Path | None = None) -> Annotations:
    """Read an annotations.xml. images: the pictures' folder; by default images/ beside the file, or beside it."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError) as error:
        raise InputError(f"{path}: cannot be read as XML ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    if root.tag == "annotations" and root.find("track") is not None:
        raise InputError(f"{path}: tracks of a video: export the task as 'CVAT for images 1.1'")
    if root.tag != "annotations" or root.find("image") is None:
        raise InputError(
            f"{path}: not an export of 'CVAT for images 1.1': <annotations> with <image> is expected"
        )

    found = Annotations("CVAT")
    labels = {(name.text or "").strip() for name in root.iterfind("meta//labels/label/name")} - {""}
    folders = [images] if images else [path.parent / "images", path.parent]
    for element in root.iterfind("image"):
        name = element.get("name")
        try:
            size = (int(element.attrib["height"]), int(element.attrib["width"]))
        except (KeyError, ValueError):
            name = None
        if name is None:
            found.problems.append(f"{path}: image {element.get('id')}: needs name, width and height")
            continue
        shapes = []
        for shape in element:
            if shape.tag in WITHOUT_AREA:
                found.left_out[WITHOUT_AREA[shape.tag]] += 1
            elif shape.tag in ("polygon", "box", "ellipse", "mask"):
                if shape.get("label") is None:
                    found.problems.append(f"{path}: {name}: a {shape.tag} without label")
                    continue
                labels.add(shape.attrib["label"])
                shapes.append(shape)
        subset = element.get("subset")
        file = find_picture(name, [*[f / subset for f in folders if subset], *folders])
        if file is None:
            found.problems.append(f"{name}: the picture was not found in {folders[0]}")
            continue
        found.pictures.append(Picture(name, file, partial(_regions, shapes), size))
    found.labels = sorted(labels)
    return found


def _regions(shapes: list[ElementTree.Element]) -> list[Region]:
    try:
        ordered = sorted(shapes, key=lambda shape: int(shape.get("z_order") or 0))
    except ValueError:
        raise ValueError("a z_order that is no whole number") from None
    return [_region(shape) for shape in ordered]


def _region(shape: ElementTree.Element) -> Region:
    label, kind = shape.attrib["label"], shape.tag
    try:
        if kind == "polygon":
            corners = shape.attrib["points"].split(";")
            return Region(label, [read_polygon([corner.split(",") for corner in corners])])
        turned = float(shape.get("rotation") or 0)
        if kind == "box":
            x0, y0, x1, y1 = (float(shape.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
            return Region(label, [box(x0, y0, x1, y1, turned)])
        if kind == "ellipse":
            x, y, radius_x, radius_y = (float(shape.attrib[part]) for part in ("cx", "cy", "rx", "ry"))
            return Region(label, [ellipse(x, y, radius_x, radius_y, turned)])
        left, top, width, height = (int(shape.attrib[side]) for side in ("left", "top", "width", "height"))
        counts = [int(count) for count in shape.attrib["rle"].split(",")]
        return Region(label, patch=decode_runs(counts, height, width, "rows"), corner=(left, top))
    except KeyError as error:
        raise ValueError(f"{kind} ({label}): no {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{kind} ({label}): {error}") from None
