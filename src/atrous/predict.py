"""From a picture to its segmentation: numpy in, numpy out, by any of the papers' protocols."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor, nn

from atrous import checkpoint, runtimes
from atrous.config import Average, Mode, Protocol
from atrous.crf import DenseCRF, unary_from_labels
from atrous.data.base import highest_class, with_one_void
from atrous.data.labels import Colour, Labels
from atrous.data.pictures import read_image, read_mask, rgb
from atrous.errors import InputError, choose
from atrous.hints import check_value
from atrous.kernels.upsampling import highest, resized_labels
from atrous.layers import resize
from atrous.models import Model, at_output_stride, smallest_picture
from atrous.protocols import settle
from atrous.runtimes.choice import Choice, choose_runtime
from atrous.score_maps import GrownScores, add_resized, made
from atrous.tiling import slide

Picture = NDArray[np.uint8] | Image | str | Path
WINDOW = (513, 513)  # v3 sec. 4.1: the crop that it is trained on, where nothing else names one


@dataclass(frozen=True)
class Segmentation:
    """labels: (H, W) class of each pixel; probabilities: (C, H, W) float32 in 0..1, where they were asked for."""

    labels: NDArray[Any]  # uint8; uint16 beyond 256 classes
    probabilities: NDArray[np.float32] | None
    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    @property
    def classes(self) -> Labels:
        """What the numbers in `labels` mean."""
        return Labels.named(self.names, self.palette)


class Predictor:
    """Segments pictures with a model or checkpoint file. What is not given is taken from the checkpoint.

    model: of `create_model` or `load`, or a file, or the folder of a run; without one, the model that the package
    brings. One with other than three channels is an InputError: call it itself.
    protocol: how a paper evaluates, a name of `atrous.protocols.PRESETS`; the settings given beside it win over it.
    mode, size, longer_side, scales, flip, overlap, average, output_stride: see `atrous.config.Protocol`; one number is
    a square size, or a single scale.
    crf: its parameters; True takes the checkpoint's, or its own where it has none; False is no CRF.
    device: "auto" takes CUDA or MPS where there is one.
    A path may also be a file of `atrous export`: .onnx, .xml or .pt2, which run on the CPU. runtime: "auto", "eager",
    "torch", "onnxruntime" or "openvino", precision: "fp32" or "bf16"; see `atrous.runtimes.prepare`. pictures: how
    many there will be, for "auto": a few do not pay for a conversion; None: many.
    """

    def __init__(
        self,
        model: nn.Module | str | Path = checkpoint.BOX,
        mode: Mode | None = None,
        size: tuple[int, int] | int | None = None,
        longer_side: int | None = None,
        scales: Sequence[float] | float | None = None,
        flip: bool | None = None,
        crf: dict[str, float] | bool | None = None,
        device: str = "auto",
        *,
        protocol: str | None = None,
        overlap: float | None = None,
        average: Average | None = None,
        output_stride: int | None = None,
        runtime: str = "auto",
        precision: str = "fp32",
        pictures: int | None = None,
    ) -> None:
        source = checkpoint.locate(model) if isinstance(model, (str, Path)) else None
        if isinstance(model, (str, Path)):
            model = runtimes.load(model)
        channels = checkpoint.config_of(model).in_channels
        if channels != 3:
            raise InputError(
                f"this model takes {channels} channels, and pictures are read as RGB, which has 3: call the model "
                f"itself, on tensors (N, {channels}, H, W)"
            )
        metadata = checkpoint.metadata_of(model)
        if isinstance(scales, int | float):
            scales = (scales,)
        given: dict[str, Any] = {
            "mode": mode,
            "size": (size, size) if isinstance(size, int) else size,
            "longer_side": longer_side,
            "scales": tuple(scales) if isinstance(scales, Iterable) else scales,
            "flip": flip,
            "crf": crf,
            "overlap": overlap,
            "average": average,
            "output_stride": output_stride,
        }
        crop = metadata.recipe.get("crop_size")
        window = (crop, crop) if isinstance(crop, int) else tuple(crop) if crop else None
        self.protocol: Protocol = settle(metadata.protocol, protocol, given, window)
        self.window = self.protocol.size or window or WINDOW
        stride = self.protocol.output_stride
        if stride is not None and isinstance(model, runtimes.Exported):
            if stride != model.config.output_stride:
                raise InputError(
                    f"{model.path} was exported at output stride {model.config.output_stride}: it has no other"
                )
        elif stride is not None:
            model = at_output_stride(cast(Model, model), stride)
        self.crf = None if self.protocol.crf is None else make_crf(self.protocol.crf)
        self.device = pick_device("cpu" if isinstance(model, runtimes.Exported) else device)
        check_value("pictures", pictures, int | None)
        views = None if pictures is None else pictures * self.protocol.views
        if runtime == "auto":
            self.choice = choose_runtime(model, self.device, precision, source, views)
            runtime = self.choice.runtime
        else:
            self.choice = Choice(runtime)
        # what direct mode pads a picture to, at least
        self.smallest = model.smallest if isinstance(model, runtimes.Exported) else smallest_picture(model)
        self.model = runtimes.prepare(model, self.device, runtime, precision, source)
        self.output_stride = checkpoint.config_of(model).output_stride
        self.labels = metadata.labels
        self.metadata = metadata
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (metadata.normalization.mean, metadata.normalization.std)
        )

    def predict(self, image: Picture, probabilities: bool = False) -> Segmentation:
        """Segment one RGB picture: (H, W, 3) uint8, a Pillow image, or a file. The answer has the picture's own size.

        A Pillow image is taken as it is turned: its EXIF orientation is not applied, as that of a file is.
        """
        return self.predict_batch([image], probabilities)[0]

    def predict_batch(self, images: Sequence[Picture], probabilities: bool = False) -> list[Segmentation]:
        """Segment RGB pictures, as `predict` takes them; the answers are in their order.

        Those of one size go through the network together, and so does the memory for them.
        """
        pictures = [self._pixels(image) for image in images]
        groups: dict[torch.Size, list[int]] = {}
        for index, pixels in enumerate(pictures):
            groups.setdefault(pixels.shape, []).append(index)
        results: dict[int, Segmentation] = {}
        for indices in groups.values():
            batch = torch.stack([pictures[index] for index in indices])
            scores = self.scores(batch).cpu() if probabilities else None
            labels = (self.label_map(batch) if scores is None else highest(scores)).cpu().numpy()
            for place, index in enumerate(indices):
                results[index] = Segmentation(
                    labels=labels[place].astype(np.uint8 if len(self.labels) <= 256 else np.uint16),
                    probabilities=None if scores is None else scores[place].contiguous().numpy(),
                    names=self.labels.names,
                    palette=self.labels.palette,
                )
        return [results[index] for index in range(len(pictures))]

    @staticmethod
    def _pixels(image: Picture) -> Tensor:
        """(3, H, W) uint8."""
        if isinstance(image, (str, Path)):
            image = read_image(image)
        elif isinstance(image, Image):
            image = rgb(image, "the picture")
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"a picture is (H, W, 3) uint8 RGB, a Pillow image or a file, not {type(image).__name__}"
            )
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(f"a picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
        plain = image.flags.c_contiguous and image.flags.writeable and min(image.strides) > 0
        return torch.from_numpy(image if plain else image.copy()).permute(2, 0, 1)

    @torch.inference_mode()
    def label_map(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (H, W) classes, or (N, 3, H, W) -> (N, H, W): the argmax of `scores`.

        Where the protocol has one view, without the memory of the scores.
        """
        if image.ndim == 3:
            return self.label_map(image[None])[0]
        if not self._one_view or self.crf is not None:
            return highest(self.scores(image))
        if isinstance(self.model, runtimes.Exported) and self.model.output == "labels":
            return self.model.labels(image)
        height, width = image.shape[-2:]
        x = self._padded(self._normalized(image))
        coarse = self.model.scores(x.contiguous(memory_format=torch.channels_last))["out"]  # type: ignore[operator]
        align_corners: Any = self.model.align_corners
        labels = torch.stack([resized_labels(each, x.shape[-2:], align_corners) for each in coarse])
        return labels[:, :height, :width]

    @property
    def _one_view(self) -> bool:
        """Whether the network's answer on the picture as it is, is the answer."""
        protocol = self.protocol
        return (
            protocol.mode == "direct"
            and protocol.longer_side is None
            and protocol.scales == (1.0,)
            and not protocol.flip
        )

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> class probabilities (C, H, W) float32, averaged over the views, then the CRF.

        (N, 3, H, W) -> (N, C, H, W), for pictures of one size.
        """
        if image.ndim == 3:
            return self.scores(image[None])[0]
        whole = (self.protocol.longer_side or max(image.shape[-2:])) / max(image.shape[-2:])
        mean = self.probabilities(self._mean_of_views(self._normalized(image), self._run, whole))
        return mean if self.crf is None else self.crf(image.permute(0, 2, 3, 1), mean)

    @torch.inference_mode()
    def window_scores(self, window: Tensor, size: tuple[int, int]) -> Tensor:
        """What is averaged of a window (1, 3, h, w) uint8: (1, C, *size), the mean over the views of this window.

        A window smaller than `size` is padded with the mean colour.
        """
        x = self._normalized(window)
        x = F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]))
        return self._mean_of_views(x, self._whole)

    def probabilities(self, mean: Tensor) -> Tensor:
        """Class probabilities from the mean of what the protocol averages, (N, C, H, W)."""
        return mean.softmax(1) if self.protocol.average == "logits" else mean

    def _mean_of_views(
        self, x: Tensor, run: Callable[[Tensor], Tensor | GrownScores], whole: float = 1.0
    ) -> Tensor:
        """The mean of what `run` says of (N, 3, H, W) at the protocol's scales, times `whole`, and flips."""
        height, width = x.shape[-2:]
        if self.protocol.views == 1 and whole * self.protocol.scales[0] == 1:
            return made(run(x))
        total = None
        for scale in (whole * scale for scale in self.protocol.scales):
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            scaled = _shrink_or_grow(x, size)
            for flipped in (False, True) if self.protocol.flip else (False,):
                view = scaled.flip(-1) if flipped else scaled
                scores = run(view.contiguous(memory_format=torch.channels_last))
                total = add_resized(total, scores, (height, width), flipped)
        assert total is not None
        return total.div_(self.protocol.views)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images.to(self.device).float() / 255 - self.mean) / self.std

    def _run(self, x: Tensor) -> Tensor | GrownScores:
        """What is averaged, of one view (N, 3, H, W) on its own grid, by the protocol's mode."""
        if self.protocol.mode == "direct" or self.protocol.size is None:
            return self._direct(x)
        if self.protocol.mode == "resize":
            return resize(self._whole(_shrink_or_grow(x, self.protocol.size)).made(), x.shape[-2:])
        return slide(lambda window: self._whole(window).made(), x, self.protocol.size, self.protocol.overlap)

    def _direct(self, x: Tensor) -> GrownScores:
        """The model on the picture padded (with the mean colour) to whole strides that it takes, cropped back."""
        return replace(self._whole(self._padded(x)), size=(x.shape[-2], x.shape[-1]))

    def _padded(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        down, right = (
            -(-max(side, self.smallest) // self.output_stride) * self.output_stride for side in x.shape[-2:]
        )
        return F.pad(x, (0, right - width, 0, down - height))

    def _whole(self, x: Tensor) -> GrownScores:
        """The model on a picture as it is: a size that the protocol names, such as 513, is the model's own."""
        coarse = self.model.scores(x.contiguous(memory_format=torch.channels_last))["out"]  # type: ignore[operator]
        align_corners: Any = self.model.align_corners
        height, width = x.shape[-2:]
        softmax = self.protocol.average != "logits"
        return GrownScores(coarse, (height, width), (height, width), align_corners, softmax)


def _shrink_or_grow(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a picture; when it shrinks, with the low-pass filter that training's random scale has too."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def make_crf(options: dict[str, float]) -> DenseCRF:
    """The dense CRF with some of its parameters given; InputError for one that it does not have or cannot use."""
    known = list(inspect.signature(DenseCRF).parameters)
    for option in options:
        choose("parameter of the CRF", option, known)
    given: dict[str, Any] = dict(options)
    iterations = given.get("iter_max")
    if (
        isinstance(iterations, float) and iterations.is_integer()
    ):  # 10.0, as the command line and JSON have it
        given["iter_max"] = int(iterations)
    return DenseCRF(**given)


def _numbered(classes: int) -> Labels:
    return Labels.named([f"class_{number}" for number in range(classes)])


def refine_file(
    picture: Path, scores: Path, crf: DenseCRF, confidence: float = 0.7, probabilities: bool = False
) -> tuple[NDArray[np.uint8], Segmentation]:
    """The dense CRF on a picture and the scores or labels that some network gave it; returns picture and result.

    scores: .npy of probabilities (C, H, W), or an index PNG of labels 0..C-1 with 255 or 65535 for "unsure" (65535
    alone where there is a class beyond 255), believed with `confidence`. InputError where a file is unreadable or the
    two do not fit.
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
        names = _numbered(max(2, highest_class(labels) + 1))
        known = torch.from_numpy(with_one_void(labels, names).astype(np.int64))
        unary = unary_from_labels(known, len(names), confidence, names.ignore_index)
        refined = crf.infer(image, unary).numpy()
    names = _numbered(len(refined))
    found = refined.argmax(0).astype(np.uint8 if len(names) <= 256 else np.uint16)
    return image, Segmentation(found, refined if probabilities else None, names.names, names.palette)


def pick_device(name: str) -> torch.device:
    """ "auto": CUDA, then MPS, then the CPU; otherwise the device named, InputError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
