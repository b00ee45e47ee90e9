"""One pass over the data: the scores, and of every picture its own mIoU and a small copy."""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from atrous.boundary import BOUNDARY_SHARE
from atrous.data.base import Sample, SegmentationDataset
from atrous.evaluation import evaluate
from atrous.info import describe
from atrous.metrics import ConfusionMatrix, Metrics
from atrous.models import Model
from atrous.predict import Predictor

TRIMAP = (1, 2, 5, 10, 20, 40)  # pixels; v1 sec. 5, v2 sec. 4.1 and v3+ sec. 4.4 look at 1 to 40
SMALL = 240  # pixels of the longer side of a small copy
TIMED = 5  # calls


@dataclass(frozen=True)
class Shot:
    """A picture: its own mIoU (over the classes in its truth or prediction), and small copies as JPEG and PNG."""

    name: str
    miou: float
    photo: bytes
    truth: bytes
    prediction: bytes

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
        """photo (h, w, 3), truth (h, w), prediction (h, w)."""
        photo, truth, prediction = (
            np.asarray(Image.open(io.BytesIO(data))) for data in (self.photo, self.truth, self.prediction)
        )
        return photo, truth, prediction


@dataclass(frozen=True)
class Measured:
    """milliseconds: of one prediction of a picture of `size` (height, width), the median; None where none was made.

    multiply_adds: at that size; None for a file that was exported. memory: bytes, the highest of this process or,
    on CUDA, of the device.
    """

    metrics: Metrics
    protocol: str
    shots: list[Shot]
    size: tuple[int, int]
    milliseconds: float
    device: str
    threads: int
    memory: int
    parameters: int
    multiply_adds: int | None


def measure(
    predictor: Predictor,
    data: SegmentationDataset,
    limit: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Measured:
    """Evaluate as `atrous evaluate` does, with trimap and Boundary IoU, and keep a small copy of every picture.

    Raises what `evaluate` raises. Memory: some 20 kB for each picture.
    """
    shots: list[Shot] = []
    first: list[torch.Tensor] = []

    def keep(sample: Sample, prediction: NDArray[np.int64]) -> None:
        if not first:
            first.append(sample.image)
        truth = sample.mask.numpy()
        own = ConfusionMatrix(len(data.labels), data.labels.ignore_index)
        own.update(truth, prediction)
        shots.append(shot(sample.name, own.metrics(data.labels.names).miou, sample.image, truth, prediction))

    if predictor.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(predictor.device)
    metrics = evaluate(
        predictor, data, limit, progress, trimap=TRIMAP, boundary_share=BOUNDARY_SHARE, each=keep
    )
    size = tuple(first[0].shape[-2:])
    model = predictor.model
    return Measured(
        metrics=metrics,
        protocol=str(predictor.protocol),
        shots=shots,
        size=(size[0], size[1]),
        milliseconds=_milliseconds(predictor, first[0]),
        device=str(predictor.device),
        threads=torch.get_num_threads(),
        memory=_peak_memory(predictor.device),
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=describe(model, (size[0], size[1])).multiply_adds if isinstance(model, Model) else None,
    )


def shot(name: str, miou: float, image: torch.Tensor, truth: NDArray[Any], prediction: NDArray[Any]) -> Shot:
    """Small copies: the photo smoothed, labels by the nearest pixel."""
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    scale = min(1.0, SMALL / max(pixels.size))
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    labels = [np.clip(each, 0, 65535).astype(np.uint16) for each in (truth, prediction)]
    small = [Image.fromarray(each).resize(size, Image.Resampling.NEAREST) for each in labels]
    photo = pixels.resize(size, Image.Resampling.LANCZOS)
    return Shot(name, miou, _bytes(photo, "JPEG", quality=90), *(_bytes(each, "PNG") for each in small))


def error_map(
    photo: NDArray[np.uint8], truth: NDArray[Any], prediction: NDArray[Any], ignore_index: int
) -> NDArray[np.uint8]:
    """The photo in faint grey, wrong pixels vermilion, void white: (H, W, 3)."""
    grey = photo.mean(-1, keepdims=True).repeat(3, -1) * 0.35 + 150
    wrong, void = truth != prediction, truth == ignore_index
    grey[wrong] = (213, 94, 0)  # of Okabe and Ito
    grey[void] = 255
    return grey.astype(np.uint8)


def _bytes(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def _milliseconds(predictor: Predictor, image: torch.Tensor) -> float:
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        predictor.label_map(image).cpu()  # waits for the device
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _peak_memory(device: torch.device) -> int:
    """Bytes; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
