"""From an upload to its segmentation, in steps whose answers are kept: so a slider of the CRF waits for the CRF alone.

file -> Upload -> Scores, one for each model -> Segmentation        nothing here knows of a page, or of who asks
        limits    the network, slow             the dense CRF, fast
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.labels import Labels
from atrous.data.pictures import read_image
from atrous.errors import InputError, choose
from atrous.pre_annotations import PolygonOptions, annotate
from atrous.predict import Predictor, Segmentation, make_crf
from atrous.protocols import settle
from atrous.results import index_png, save_json
from atrous.visualize import draw

LONGEST_NAME = 200  # bytes of the name of a download before its ending: file systems take 255 in all
KEPT_PREDICTORS = 4  # models at other protocols; each is as large as its weights


@dataclass(frozen=True)
class Limits:
    """Of an upload: megabytes of the file; pixels, looked at before it is decoded. side: longer pictures are shrunk."""

    megabytes: float = 20
    pixels: int = 50_000_000
    side: int = 1024


@dataclass(frozen=True)
class Upload:
    """name: for downloads, without folder and ending. image: (H, W, 3) uint8. size: (height, width) of the file."""

    name: str
    file_name: str
    image: NDArray[np.uint8]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """How the network is to look at a picture; None leaves it to the protocol, and that to the checkpoint."""

    protocol: str | None = None
    scales: tuple[float, ...] | None = None
    flip: bool | None = None


@dataclass(frozen=True)
class Scores:
    """What a model says of a picture before any CRF: probabilities (C, H, W)."""

    model: str
    probabilities: NDArray[np.float32]
    labels: Labels
    protocol: str
    seconds: float


def read_upload(path: str | Path, limits: Limits) -> Upload:
    """InputError, without the folder of the file, for what is no picture or beyond the limits."""
    path = Path(path)
    notes: list[str] = []
    if path.stat().st_size > limits.megabytes * 1e6:
        raise InputError(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB; files up to {limits.megabytes:g} MB are taken here"
        )
    try:
        check_pixels(path, limits.pixels)
        image = read_image(path, notes=notes)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None
    height, width = image.shape[:2]
    shrink = limits.side / max(height, width)
    if shrink < 1:
        to = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = np.asarray(Image.fromarray(image).resize(to, Image.Resampling.LANCZOS))
        notes.append(f"{width}x{height} pixels, worked on at {to[0]}x{to[1]}; so are the downloads")
    lines = tuple(note.replace(f"{path}: ", "") for note in notes)
    name = os.fsencode(path.stem)[:LONGEST_NAME].decode(errors="ignore")
    return Upload(name or "picture", path.name, image, (height, width), lines)


def check_pixels(path: Path, limit: int) -> None:
    """InputError for a picture of more pixels, from the head of the file alone; others are not judged here."""
    try:
        with Image.open(path) as picture:
            pixels = picture.width * picture.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = limit + 1
    except Exception:  # read_image says what is wrong with it
        return
    if pixels > limit:
        raise InputError(f"{path}: too many pixels; pictures up to {limit:,} pixels are taken here")


class Models:
    """The models of a page by name; predictors are made when they are first asked for."""

    def __init__(self, paths: Sequence[str], device: str = "auto") -> None:
        self.device = device
        self._paths = dict(zip(_short_names(paths), paths, strict=True))
        self._predictors: OrderedDict[tuple[str, Wish], Predictor] = OrderedDict()
        self._turn = threading.Lock()
        self._own = {name: Predictor(path, device=device).protocol for name, path in self._paths.items()}

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def predictor(self, name: str, wish: Wish = Wish()) -> Predictor:
        """Without the CRF, which is a step of its own. InputError where model and wish do not go together."""
        key = (choose("model", name, self.names), wish)
        with self._turn:
            if key not in self._predictors:
                self._predictors[key] = Predictor(
                    self._paths[name],
                    scales=wish.scales,
                    flip=wish.flip,
                    crf=False,
                    device=self.device,
                    protocol=wish.protocol,
                )
                if len(self._predictors) > KEPT_PREDICTORS:
                    self._predictors.popitem(last=False)
            self._predictors.move_to_end(key)
            return self._predictors[key]

    def crf(self, name: str, wish: Wish) -> dict[str, float] | None:
        """The CRF that the protocol has behind the model: its parameters, where they are not the CRF's own."""
        return settle(self._own[choose("model", name, self.names)], wish.protocol).crf


def _short_names(paths: Sequence[str]) -> list[str]:
    """The stem of each path, or the whole path where two have the same; InputError for the same path twice."""
    stems = [Path(path).stem for path in paths]
    names = [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]
    if len(set(names)) < len(names):
        raise InputError(f"{max(names, key=names.count)} is given twice")
    return names


def segment(models: Models, name: str, upload: Upload, wish: Wish) -> Scores:
    """The slow step: the network."""
    begun = time.perf_counter()
    predictor = models.predictor(name, wish)
    result = predictor.predict(upload.image, probabilities=True)
    assert result.probabilities is not None
    seconds = time.perf_counter() - begun
    return Scores(name, result.probabilities, predictor.labels, str(predictor.protocol), seconds)


_one_crf = threading.Lock()  # it keeps a lattice between pictures, and all cores are busy with one


def refine(scores: Scores, upload: Upload, crf: dict[str, float] | None) -> Segmentation:
    """The fast step: the dense CRF by its parameters, or none."""
    probabilities = scores.probabilities
    if crf is not None:
        with _one_crf:
            probabilities = make_crf(crf)(upload.image, probabilities)
    labels = probabilities.argmax(0).astype(np.uint8 if len(scores.labels) <= 256 else np.uint16)
    return Segmentation(labels, probabilities, scores.labels.names, scores.labels.palette)


@dataclass(frozen=True)
class Share:
    """A class that is in a picture. share: of the pixels, 0..1. confidence: mean probability of its pixels."""

    number: int
    name: str
    share: float
    confidence: float


def shares(result: Segmentation) -> list[Share]:
    """The classes in a segmentation, the largest first."""
    count = np.bincount(result.labels.ravel(), minlength=len(result.names))
    total = np.bincount(result.labels.ravel(), confidence(result).ravel(), minlength=len(result.names))
    return [
        Share(
            int(n),
            result.names[n],
            float(count[n]) / result.labels.size,
            float(total[n]) / float(count[n]),
        )
        for n in np.argsort(-count, kind="stable")
        if count[n]
    ]


def confidence(result: Segmentation) -> NDArray[np.float32]:
    """(H, W): the probability of each pixel's own class."""
    assert result.probabilities is not None
    return np.take_along_axis(result.probabilities, result.labels[None].astype(np.int64), axis=0)[0]


def write_downloads(folder: Path, upload: Upload, result: Segmentation) -> tuple[Path, Path, Path]:
    """Index PNG with the palette, overlay PNG, and polygons as a LabelMe file, named after the upload."""
    folder.mkdir(parents=True, exist_ok=True)
    mask, over, polygons = (folder / f"{upload.name}{end}" for end in ("_mask.png", "_overlay.png", ".json"))
    index_png(result).save(mask)
    drawn = draw(upload.image, result.labels, result.classes)
    Image.fromarray(drawn).save(over)
    assert result.probabilities is not None
    options = PolygonOptions("labelme")
    save_json(
        polygons, annotate(result.labels, result.probabilities, result.names, upload.file_name, options)
    )
    return mask, over, polygons
