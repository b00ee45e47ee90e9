"""From a picture to its segmentation: numpy in, numpy out, by any of the papers' protocols."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from atrous import checkpoint, runtimes
from atrous.config import Mode, Protocol
from atrous.crf import DenseCRF, unary_from_labels
from atrous.data.labels import IGNORE_INDEX, Colour, Labels
from atrous.data.pictures import read_image, read_mask
from atrous.errors import InputError, choose
from atrous.layers import resize
from atrous.tiling import slide
from atrous.upsampling import resized_labels
from atrous.visualize import overlay


@dataclass(frozen=True)
class Segmentation:
    """labels: (H, W) class of each pixel; probabilities: (C, H, W) float32 in 0..1, where they were asked for."""

    labels: NDArray[Any]  # uint8; uint16 beyond 256 classes
    probabilities: NDArray[np.float32] | None
    names: tuple[str, ...]
    palette: tuple[Colour, ...]


class Predictor:
    """Segments pictures with a model or checkpoint file. What is not given is taken from the checkpoint.

    mode, size, longer_side, scales, flip, crf: see `atrous.config.Protocol`. device: "auto" takes CUDA or MPS where
    there is one. A path may also be a file of `atrous export`: .onnx, .xml or .pt2, which run on the CPU. runtime:
    "auto", "eager", "torch", "onnxruntime" or "openvino", precision: "fp32" or "bf16"; see `atrous.runtimes.prepare`.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        mode: Mode | None = None,
        size: tuple[int, int] | None = None,
        longer_side: int | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        crf: dict[str, float] | None = None,
        device: str = "auto",
        runtime: str = "auto",
        precision: str = "fp32",
    ) -> None:
        source = Path(model) if isinstance(model, (str, Path)) else None
        if isinstance(model, (str, Path)):
            model = runtimes.load(model)
        metadata = checkpoint.metadata_of(model)
        given: dict[str, Any] = {
            "mode": mode,
            "size": size,
            "longer_side": longer_side,
            "scales": None if scales is None else tuple(scales),
            "flip": flip,
            "crf": crf,
        }
        self.protocol: Protocol = replace(
            metadata.protocol, **{key: value for key, value in given.items() if value is not None}
        )
        self.crf = None if self.protocol.crf is None else make_crf(self.protocol.crf)
        self.device = pick_device("cpu" if isinstance(model, runtimes.Exported) else device)
        self.model = runtimes.prepare(model, self.device, runtime, precision, source)
        self.output_stride = checkpoint.config_of(model).output_stride
        self.labels = metadata.labels
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (metadata.normalization.mean, metadata.normalization.std)
        )

    def predict(self, image: NDArray[np.uint8] | str | Path, probabilities: bool = False) -> Segmentation:
        """Segment one RGB picture: (H, W, 3) uint8, or a file. The answer has the picture's own size."""
        if isinstance(image, (str, Path)):
            image = read_image(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"a picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        scores = self.scores(pixels) if probabilities else None
        labels = (self.label_map(pixels) if scores is None else scores.argmax(0)).cpu().numpy()
        return Segmentation(
            labels=labels.astype(np.uint8 if len(self.labels) <= 256 else np.uint16),
            probabilities=None if scores is None else scores.cpu().numpy(),
            names=self.labels.names,
            palette=self.labels.palette,
        )

    @torch.inference_mode()
    def label_map(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (H, W) classes: `scores(image).argmax(0)`, where it can be without the scores' memory."""
        plain = Protocol(crf=self.protocol.crf) == self.protocol and self.crf is None
        if not plain:
            return self.scores(image).argmax(0)
        if isinstance(self.model, runtimes.Exported) and self.model.output == "labels":
            return self.model.labels(image[None])[0]
        height, width = image.shape[-2:]
        x = self._padded(((image.to(self.device).float() / 255 - self.mean) / self.std)[None])
        coarse = self.model.scores(x.contiguous(memory_format=torch.channels_last))["out"][0]  # type: ignore[operator]
        labels = resized_labels(coarse, x.shape[-2:], self.model.align_corners)  # type: ignore[arg-type]
        return labels[:height, :width]

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> class probabilities (C, H, W) float32, averaged over scales and flips, then the CRF."""
        height, width = image.shape[-2:]
        x = (image.to(self.device).float() / 255 - self.mean) / self.std
        total, views = None, 0
        whole = (self.protocol.longer_side or max(height, width)) / max(height, width)
        for scale in (whole * scale for scale in self.protocol.scales):
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            scaled = _shrink_or_grow(x[None], size)
            for flipped in (False, True) if self.protocol.flip else (False,):
                view = scaled.flip(-1) if flipped else scaled
                scores = self._run(view.contiguous(memory_format=torch.channels_last))
                scores = scores.flip(-1) if flipped else scores
                scores = resize(scores, (height, width))
                total = scores if total is None else total + scores
                views += 1
        assert total is not None
        mean = (total / views)[0]
        return mean if self.crf is None else self.crf(image.permute(1, 2, 0), mean)

    def _run(self, x: Tensor) -> Tensor:
        """Probabilities of one view (1, 3, H, W) on its own grid, by the protocol's mode."""
        if self.protocol.mode == "direct" or self.protocol.size is None:
            return self._direct(x)
        if self.protocol.mode == "resize":
            return resize(self._whole(_shrink_or_grow(x, self.protocol.size)), x.shape[-2:])
        return slide(self._whole, x, self.protocol.size)

    def _direct(self, x: Tensor) -> Tensor:
        """The model on the picture padded (with the mean colour) to whole strides, cropped back."""
        return self._whole(self._padded(x))[..., : x.shape[-2], : x.shape[-1]]

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[-1] % self.output_stride, 0, -x.shape[-2] % self.output_stride))

    def _whole(self, x: Tensor) -> Tensor:
        """The model on a picture as it is: a size that the protocol names, such as 513, is the model's own."""
        logits: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        return logits.float().softmax(1)


def _shrink_or_grow(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a picture; when it shrinks, with the low-pass filter that training's random scale has too."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def make_crf(options: dict[str, float]) -> DenseCRF:
    """The dense CRF with some of its parameters given; InputError for one that it does not have."""
    known = list(inspect.signature(DenseCRF).parameters)
    for option in options:
        choose("parameter of the CRF", option, known)
    given: dict[str, Any] = dict(options)
    if "iter_max" in given:
        given["iter_max"] = int(given["iter_max"])
    return DenseCRF(**given)


def refine_file(
    picture: Path, scores: Path, crf: DenseCRF, confidence: float = 0.7, probabilities: bool = False
) -> tuple[NDArray[np.uint8], Segmentation]:
    """The dense CRF on a picture and the scores or labels that some network gave it; returns picture and result.

    scores: .npy of probabilities (C, H, W), or an index PNG of labels 0..C-1 with 255 for "unsure", believed with
    `confidence`. InputError where a file is unreadable or the two do not fit.
    """
    image = read_image(picture)
    if scores.suffix == ".npy":
        try:
            given = np.load(scores, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{scores}: not a readable .npy file ({error})") from None
        if given.ndim != 3 or given.shape[1:] != image.shape[:2]:
            wanted = f"(C, {image.shape[0]}, {image.shape[1]})"
            raise InputError(f"{scores}: wanted probabilities {wanted} for {picture}, found {given.shape}")
        refined = crf(image, given)
    else:
        labels = read_mask(scores)
        if labels.shape != image.shape[:2]:
            raise InputError(f"{scores}: {labels.shape} pixels, but {picture} has {image.shape[:2]}")
        known = labels[labels != IGNORE_INDEX]
        classes = max(2, int(known.max(initial=0)) + 1)
        unary = unary_from_labels(
            torch.from_numpy(labels.astype(np.int64)), classes, confidence, IGNORE_INDEX
        )
        refined = crf.infer(image, unary).numpy()
    names = Labels.named([f"class_{i}" for i in range(len(refined))])
    found = refined.argmax(0).astype(np.uint8 if len(names) <= 256 else np.uint16)
    return image, Segmentation(found, refined if probabilities else None, names.names, names.palette)


def pick_device(name: str) -> torch.device:
    """ "auto": CUDA, then MPS, then the CPU; otherwise the device named, InputError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def write_segmentation(
    result: Segmentation, image: NDArray[np.uint8], folder: Path, name: str, overwrite: bool = False
) -> list[Path]:
    """Write NAME.png (class indices with the palette), NAME_overlay.png and, where there are, NAME_probabilities.npy.

    Files are written beside and renamed. InputError where one exists already, unless `overwrite`.
    """
    labels = Labels(result.names, result.palette)
    files: dict[Path, Callable[[Path], None]] = {
        folder / f"{name}.png": index_png(result).save,
        folder / f"{name}_overlay.png": Image.fromarray(overlay(image, result.labels, labels)).save,
    }
    if result.probabilities is not None:
        scores = result.probabilities
        files[folder / f"{name}_probabilities.npy"] = lambda path: np.save(path, scores)
    for path in files:
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; give another --out, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for path, write in files.items():
        beside = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            write(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return list(files)


def index_png(result: Segmentation) -> Image.Image:
    """The labels as a palette picture; beyond 256 classes as 16-bit grey, which has no palette."""
    if result.labels.dtype != np.uint8:
        return Image.fromarray(result.labels)
    picture = Image.fromarray(result.labels, mode="P")
    picture.putpalette([value for colour in result.palette for value in colour])
    return picture


PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm")


def find_pictures(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> file for pictures and all pictures below folders; where two stems clash the ending joins the name."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
            if not inside:
                raise InputError(f"{path}: no pictures in this folder (looked for {' '.join(PICTURES)})")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such picture or folder")
    files = list(dict.fromkeys(files))
    stems = Counter(file.stem for file in files)
    named: dict[str, Path] = {}
    for file in files:
        name = file.stem if stems[file.stem] == 1 else file.name.replace(".", "_")
        if name in named:
            raise InputError(
                f"{named[name]} and {file}: both would be written as {name}.png; predict them apart"
            )
        named[name] = file
    return named
