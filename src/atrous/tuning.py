"""`atrous crf search`: the dense CRF's parameters for a checkpoint, by mIoU on some pictures of the validation set.

The network runs once: its probabilities are kept in a folder, float16, only the classes that are alive somewhere in
the picture. Every measured combination is written down at once, so an interrupted search goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from atrous import checkpoint
from atrous.config import to_dict
from atrous.crf import DenseCRF
from atrous.crf.search import COMBINATIONS, Parameters, coarse_to_fine
from atrous.data.base import SegmentationDataset
from atrous.errors import InputError
from atrous.evaluation import check_measured
from atrous.importers.label_names import check_same_classes
from atrous.metrics import ConfusionMatrix
from atrous.predict import Predictor
from atrous.replacing import replacing

PICTURES = 100  # v1 sec. 5, v2 sec. 4.1
ALIVE = 1e-4  # a class below that everywhere in a picture wins no pixel
Progress = Callable[[str, int, int, str], None]


@dataclass
class Found:
    """A search's result: mIoU without CRF, of every combination in the order tried, and the best one."""

    plain: float
    tried: list[tuple[Parameters, float]] = field(default_factory=list)
    best: Parameters = field(default_factory=dict)
    best_miou: float = 0.0

    def table(self, most: int = 15) -> Table:
        """The best combinations, and no CRF for comparison."""
        names = list(self.tried[0][0])
        result = Table(*names, "mIoU")
        for column in result.columns:
            column.justify = "right"
        for parameters, miou in sorted(self.tried, key=lambda t: -t[1])[:most]:
            result.add_row(*(f"{parameters[name]:g}" for name in names), f"{miou:.4f}")
        result.add_row(*("" for _ in names[:-1]), "no CRF", f"{self.plain:.4f}")
        return result


def search_crf(
    predictor: Predictor,
    dataset: SegmentationDataset,
    folder: Path,
    pictures: int = PICTURES,
    iterations: int = 10,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> Found:
    """Search on `pictures` of the data set, evenly spread over it.

    folder: keeps probabilities and results; a search of the same `fingerprint`, data and protocol goes on there, any
    other one starts anew. progress(stage, done, of, note).
    """
    if not len(dataset) or pictures < 1:
        raise InputError(f"no pictures to search on ({len(dataset)} there, {pictures} asked for)")
    check_same_classes(predictor.metadata, dataset.labels)
    predictor.crf = None
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(pictures, len(dataset))).astype(int)).tolist()
    about = {
        "checkpoint": fingerprint,
        "pictures": [dataset.name(i) for i in indices],
        "iterations": iterations,
        "protocol": to_dict(replace(predictor.protocol, crf=None)),
    }
    journal = Journal(folder, about)
    tell = progress or (lambda *_: None)
    cached = []
    for done, index in enumerate(indices, start=1):
        cached.append(_cache(predictor, dataset, index, folder))
        tell("probabilities", done, len(indices), dataset.name(index))

    names, ignore = dataset.labels.names, dataset.labels.ignore_index

    def miou(refine: Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[Any]]) -> float:
        confusion = ConfusionMatrix(len(names), ignore)
        for index, file in zip(indices, cached, strict=True):
            sample = dataset[index]
            with np.load(file) as kept:
                alive, scores = kept["alive"], kept["scores"].astype(np.float32)
            image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
            confusion.update(sample.mask.numpy(), alive[refine(image, scores / scores.sum(0)).argmax(0)])
        check_measured(confusion, dataset)
        return confusion.metrics(names).miou

    found = Found(journal.get({}) if journal.has({}) else journal.add({}, miou(lambda _, scores: scores)))

    def score(parameters: Parameters) -> float:
        if not journal.has(parameters):
            crf = DenseCRF(iterations, **parameters)
            journal.add(parameters, miou(crf))
        value = journal.get(parameters)
        found.tried.append((parameters, value))
        found.best_miou = max(found.best_miou, value)
        tell(
            "search",
            len(found.tried),
            COMBINATIONS,
            f"mIoU {value:.4f}, best {found.best_miou:.4f}, no CRF {found.plain:.4f}",
        )
        return value

    found.best = coarse_to_fine(score)
    return found


class Journal:
    """results.jsonl: one line about the search, then one for each combination that was measured."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.path = folder / "results.jsonl"
        self.known: dict[str, float] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        if lines and _parse(lines[0]) == json.loads(json.dumps(about)):
            for line in map(_parse, lines[1:]):
                if isinstance(line, dict):  # the last may be half written
                    self.known[_key(line["parameters"])] = line["miou"]
            return
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.npz"):
            old.unlink()
        self.path.write_text(json.dumps(about) + "\n", encoding="utf-8")

    def has(self, parameters: Parameters) -> bool:
        return _key(parameters) in self.known

    def get(self, parameters: Parameters) -> float:
        return self.known[_key(parameters)]

    def add(self, parameters: Parameters, miou: float) -> float:
        self.known[_key(parameters)] = miou
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps({'parameters': parameters, 'miou': miou})}")
        return miou


def _key(parameters: Parameters) -> str:
    return json.dumps(parameters, sort_keys=True)


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _cache(predictor: Predictor, dataset: SegmentationDataset, index: int, folder: Path) -> Path:
    """The probabilities of one picture: alive (K,) class numbers, scores (K, H, W) float16."""
    path = folder / f"{index:06d}.npz"
    if path.is_file():
        return path
    scores = predictor.scores(dataset[index].image).cpu().numpy()
    alive = np.flatnonzero(scores.reshape(len(scores), -1).max(1) >= ALIVE)
    with replacing(path) as beside:
        np.savez(beside, alive=alive, scores=scores[alive].astype(np.float16))
    return path


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's weights, not of its header: new parameters written there change nothing."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        file.seek(8 + header)
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_best(source: Path, target: Path, found: Found, iterations: int, about: dict[str, Any]) -> None:
    """Write the checkpoint `source` to `target` with the CRF in its protocol, and the search among its scores."""
    model = checkpoint.load(source)
    metadata = checkpoint.metadata_of(model)
    metadata.protocol = replace(metadata.protocol, crf={"iter_max": iterations, **found.best})
    search = {"miou_without": found.plain, "miou_with": found.best_miou, **about}
    metadata.scores = {**metadata.scores, "crf_search": search}
    checkpoint.save(model, target, metadata)
