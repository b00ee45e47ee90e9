"""What is written for a picture."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError
from atrous.pre_annotations import PolygonOptions, annotate, part_file, picture_name
from atrous.predict import Segmentation
from atrous.visualize import STYLE, Style, draw

Writer = Callable[[Path], None]

QUICK = 1  # zlib's level for photographs: a quarter of the time of the usual 6, a seventh more bytes


@dataclass(frozen=True)
class Outputs:
    """What is written for a picture beside its mask, and how the picture for people is drawn."""

    probabilities: bool = False
    polygons: PolygonOptions | None = None
    style: Style = STYLE

    @property
    def need_probabilities(self) -> bool:
        return self.probabilities or self.polygons is not None  # which have a score


OUTPUTS = Outputs()


def write_segmentation(
    result: Segmentation,
    image: NDArray[np.uint8],
    folder: Path,
    name: str,
    overwrite: bool = False,
    style: Style = STYLE,
) -> list[Path]:
    """Write NAME.png (class indices with the data set's palette), the picture for people, NAME_overlay.png or as its
    view is called, and, where there are, NAME_probabilities.npy.

    Files are written beside and renamed. InputError where one exists already, unless `overwrite`.
    """
    outputs = Outputs(result.probabilities is not None, style=style)
    if not overwrite:
        refuse_existing(folder, name, outputs)
    written = write_beside(result, image, folder, name, outputs)
    put_in_place(written)
    return list(written)


def result_files(folder: Path, name: str, outputs: Outputs) -> list[Path]:
    """The files that belong to a picture."""
    endings = (
        ".png",
        f"_{outputs.style.view}.png",
        *(("_probabilities.npy",) if outputs.probabilities else ()),
    )
    polygons = outputs.polygons
    return [
        *(folder / f"{name}{ending}" for ending in endings),
        *([part_file(folder, name, polygons)] if polygons else []),
    ]


def large_files(folder: Path, name: str) -> list[Path]:
    """Those of a picture that is predicted by windows: the label map and a small look at it."""
    return [folder / f"{name}.tif", folder / f"{name}_overview.png"]


def refuse_clashes(pictures: dict[str, Path], outputs: Outputs, large: Callable[[Path], bool]) -> None:
    """InputError where two pictures (name -> file) would be written to one file; `large`: those that go by windows."""

    def files(name: str) -> set[Path]:
        found = large_files if large(pictures[name]) else partial(result_files, outputs=outputs)
        return set(found(Path(), name))

    for name, picture in pictures.items():
        for ending in (f"_{outputs.style.view}", "_overview"):
            other = name.removesuffix(ending)
            if other != name and other in pictures and (shared := files(other) & files(name)):
                raise InputError(
                    f"{pictures[other]} and {picture}: both would be written as {shared.pop()}; predict them apart"
                )


def refuse_existing(folder: Path, name: str, outputs: Outputs, whose: str = "") -> None:
    """InputError where a result exists already; `whose` it is, for the message."""
    for path in result_files(folder, name, outputs):
        if path.exists():
            raise InputError(f"{path}: exists already{whose}; give another --out, or --overwrite")


def write_beside(
    result: Segmentation,
    image: NDArray[np.uint8],
    folder: Path,
    name: str,
    outputs: Outputs,
    picture: Path | None = None,
) -> dict[Path, Path]:
    """Write the files of a picture under passing names; {file: its passing name} for `put_in_place`.

    picture: its file, which polygons name.
    """
    writers: list[Writer] = [
        index_png(result).save,
        partial(
            Image.fromarray(draw(image, result.labels, result.classes, outputs.style)).save,
            compress_level=QUICK,
        ),
    ]
    scores, polygons = result.probabilities, outputs.polygons
    if outputs.probabilities and scores is not None:
        writers.append(lambda path: np.save(path, scores))
    if polygons and picture and scores is not None:
        named = picture_name(folder, name, picture, polygons)
        content = annotate(result.labels, scores, result.names, named, polygons)
        writers.append(lambda path: save_json(path, content))
    files = result_files(folder, name, outputs)
    beside = {path: path.with_name(f".part-{path.name}") for path in files}  # a later job takes the same
    try:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        for path, write in zip(files, writers, strict=True):
            write(beside[path])
    except BaseException:
        for passing in filter(os.path.lexists, beside.values()):
            passing.unlink(missing_ok=True)
        raise
    return beside


def why_broken(picture: Path, error: BaseException) -> str:
    """What stops this picture alone, in a line; any other error is raised again."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{picture}: the names of its results are longer than the disk takes: shorten the picture's"
    if isinstance(error, InputError):
        return str(error)
    raise error


def put_in_place(written: dict[Path, Path]) -> None:
    """Give what `write_beside` wrote its names."""
    for path, passing in written.items():
        passing.replace(path)


def save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def index_png(result: Segmentation) -> Image.Image:
    """The labels as a palette picture; beyond 256 classes as 16-bit grey, which has no palette."""
    if result.labels.dtype != np.uint8:
        return Image.fromarray(result.labels)
    picture = Image.fromarray(result.labels, mode="P")
    picture.putpalette([value for colour in result.palette for value in colour])
    return picture
