"""COCO's instance annotations (Lin et al. 2014; https://cocodataset.org/#format-data): one JSON file.

images: id, file_name, height, width. categories: id, name; the ids may have gaps. annotations: image_id,
category_id, iscrowd, and a segmentation: polygons [[x0, y0, x1, y1, ...], ...], or run lengths down the columns
{"size": [height, width], "counts": [...] or a compressed string}.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from atrous.data.annotations import Annotations, Picture, find_picture
from atrous.data.shapes import Region, decode_runs, read_polygon, unpack_runs
from atrous.errors import InputError


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content has COCO's three lists."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def read_coco(path: Path, content: dict[str, Any], images: Path | None = None) -> Annotations:
    """Read the content of an instances file. images: the pictures' folder; by default beside the file.

    Smaller regions lie over larger ones, as overlapping instances have no order; crowds lie under all.
    """
    found = Annotations("COCO", smaller_on_top=True)
    names: dict[int, str] = {}
    try:
        for category in sorted(content["categories"], key=lambda category: category["id"]):
            number, name = int(category["id"]), str(category["name"])
            names[number] = name if name not in names.values() else f"{name} {number}"
            found.ids[names[number]] = number
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: categories: each needs an id and a name ({error})") from None
    found.labels = list(found.ids)

    by_image: dict[Any, list[tuple[int, Any]]] = defaultdict(list)
    known = {
        image["id"] for image in content["images"] if isinstance(image, dict) and _is_id(image.get("id"))
    }
    for place, annotation in enumerate(content["annotations"]):
        try:
            image, category, shape = (annotation[k] for k in ("image_id", "category_id", "segmentation"))
        except KeyError as error:
            if str(error) == "'segmentation'":
                found.left_out["annotations without an outline"] += 1
            else:
                found.problems.append(f"{path}: annotation {place}: no {error}")
            continue
        except TypeError:
            found.problems.append(f"{path}: annotation {place}: not an object with image_id and category_id")
            continue
        if not _is_id(image) or image not in known or not _is_id(category) or category not in names:
            strange = not _is_id(image) or image not in known
            what = f"image_id {image}" if strange else f"category_id {category}"
            found.problems.append(f"{path}: annotation {place}: {what} is not in the file's lists")
        elif not shape:
            found.left_out["annotations without an outline"] += 1
        else:
            by_image[image].append((place, annotation))

    folders = [images] if images else _folders(path)
    for place, image in enumerate(content["images"]):
        try:
            name, number = str(image["file_name"]), image["id"]
            if not _is_id(number):
                raise ValueError
            size = (int(image["height"]), int(image["width"])) if "height" in image else None
        except (TypeError, KeyError, ValueError, OverflowError):
            found.problems.append(f"{path}: image {place}: needs id, file_name, height and width")
            continue
        file = find_picture(name, folders)
        if file is None:
            found.problems.append(f"{name}: the picture was not found in {folders[0]}")
            continue
        regions = partial(_regions, by_image.get(number, []), names, size)
        found.pictures.append(Picture(name, file, regions, size))
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str))


def _folders(path: Path) -> list[Path]:
    """Where pictures lie: beside the file, or in COCO's own layout, train2017/ for annotations/instances_train2017."""
    part, above = path.stem.split("_")[-1], path.parent.parent
    beside = [path.parent, path.parent / "images"]
    return [*beside, above / part, above / "images" / part, above / "images", above]


def _regions(
    annotations: list[tuple[int, Any]], names: dict[int, str], size: tuple[int, int] | None
) -> list[Region]:
    regions = []
    for place, annotation in annotations:
        label, below = names[annotation["category_id"]], bool(annotation.get("iscrowd"))
        shape = annotation["segmentation"]
        try:
            if isinstance(shape, dict):
                height, width = (int(side) for side in shape["size"])
                if size not in (None, (height, width)):
                    raise ValueError(f"run lengths for {width}x{height} pixels, which the picture has not")
                counts = shape["counts"]
                runs = unpack_runs(counts) if isinstance(counts, str) else counts
                patch = decode_runs(runs, height, width, "columns")
                regions.append(Region(label, patch=patch, below=below))
            elif isinstance(shape, list):
                regions.append(Region(label, [read_polygon(outline) for outline in shape], below=below))
            else:
                raise ValueError("a segmentation that is neither polygons nor run lengths")
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            missing = isinstance(error, (KeyError, TypeError))
            what = "run lengths without size and counts" if missing else str(error)
            raise ValueError(f"annotation {place}: {what}") from None
    return regions
