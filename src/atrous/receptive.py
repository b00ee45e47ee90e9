"""The receptive field of the centre score: in theory a box, in effect a bump of gradients (PSPNet sec. 3.1).

Zhou et al. (ICLR 2015) found the field that a network makes use of to be much smaller than the one that its layers add
up to, and PSPNet pools over the whole picture for that reason. Luo, Li, Urtasun and Zemel, "Understanding the
Effective Receptive Field in Deep Convolutional Neural Networks" (NeurIPS 2016), measure it by the gradient of a centre
value with respect to the picture, and so does this file.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from atrous.config import ModelConfig, Normalization
from atrous.data.pictures import read_image
from atrous.errors import InputError
from atrous.finding import find_pictures
from atrous.info import describe
from atrous.models import Model, build_model

MASS = 0.9545  # of a Gaussian within two standard deviations; the share of Luo et al. sec. 3
TOGETHER = 8  # pictures in one pass where batch norms are estimated
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReceptiveField:
    """The field of the score at the centre point of the model's own grid.

    weights: whose, "random" or "trained". gradient: (H, W), see `gradient_map`. centre: (y, x), the pixel that the
    score stands for. deepest: side in pixels of the theoretical field along the deepest path of convolutions, which
    may be larger than the picture; v3+'s resize can move and widen it by one step of the encoder's grid. pools:
    whether `gradient` also went through pools over the whole picture (image pooling, pyramid pooling, squeeze and
    excitation); the theoretical field is the whole picture then.
    """

    weights: str
    gradient: NDArray[np.float64]
    centre: tuple[int, int]
    deepest: int
    pools: bool

    @property
    def theoretical(self) -> int:
        """Side of the theoretical field in pixels; with `pools` the picture's longer side."""
        return max(self.gradient.shape) if self.pools else self.deepest

    @property
    def effective(self) -> int:
        """Side in pixels of the square with 95.45 % of the gradient, see `side_of`."""
        return side_of(self.gradient, self.centre)

    @property
    def half(self) -> int:
        """Side in pixels of the square with half of it."""
        return side_of(self.gradient, self.centre, 0.5)


def measure(
    model: Model, pictures: Tensor, weights: str = "trained", progress: Progress | None = None
) -> list[ReceptiveField]:
    """The field of a model at the size of `pictures` (N, c, H, W), which are normalised as it wants them.

    Where it pools over the whole picture, a second one follows: without what goes through those pools. A dense CRF as
    a last layer is left out: it joins all pixels. Raises what `gradient_map` raises.
    """
    if getattr(model, "crf", None) is not None:
        model = copy.deepcopy(model)
        model.crf = None
    height, width = pictures.shape[-2:]
    info = describe(model, (height, width))
    y, x = (_centre(side, info.score_stride) for side in (height, width))
    return [
        ReceptiveField(
            weights, gradient_map(model, pictures, progress, pools), (y, x), info.receptive_field, pools
        )
        for pools in ((True, False) if info.sees_whole_image else (False,))
    ]


def _centre(side: int, stride: float) -> int:
    """The pixel under point n // 2 of a grid of n = ceil(side / stride) points."""
    return min(side - 1, round(-(-side // stride) // 2 * stride))


def gradient_map(
    model: nn.Module, pictures: Tensor, progress: Progress | None = None, pools: bool = True
) -> NDArray[np.float64]:
    """|d centre score / d picture|, summed over colours, averaged over pictures (N, c, H, W): (H, W).

    The centre score is the sum over the classes at point (h // 2, w // 2) of the model's own grid, before anything is
    resized to the picture. The model, whose `scores` gives "out" (N, C, h, w), is looked at in evaluation mode, batch
    norms with their running statistics, and stays as it is. `pools=False`: as if the means over the whole picture
    were constants. InputError where no gradient arrives at all, or one that is no number.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    total = torch.zeros(pictures.shape[-2:], dtype=torch.float64)
    for done, picture in enumerate(pictures, start=1):
        x = picture[None].clone().requires_grad_()
        with contextlib.nullcontext() if pools else _ConstantPools():
            out = network.scores(x)["out"]  # type: ignore[operator]
        centre = out[0, :, out.shape[-2] // 2, out.shape[-1] // 2].sum()
        (gradient,) = torch.autograd.grad(centre, x)
        total += gradient[0].abs().sum(0).double()
        if progress is not None:
            progress(done, len(pictures))
    if not torch.isfinite(total).all() or not total.any():
        raise InputError(
            "the centre score has no gradient with respect to the picture (all of it is zero, or not a number): "
            "the activations of this network die out or grow beyond bounds"
        )
    return (total / len(pictures)).numpy()


class _ConstantPools(TorchFunctionMode):
    """No gradient goes through means over the whole grid, or over bins whose size follows it, as `info` finds them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is F.adaptive_avg_pool2d or (
            func in (torch.mean, Tensor.mean) and _over_grid(*args, **kwargs)
        ):
            return output.detach()
        return output


def _over_grid(x: Tensor, dim: Any = None, *_args: Any, **_kwargs: Any) -> bool:
    return x.ndim == 4 and isinstance(dim, Sequence) and len(dim) >= 2


def side_of(gradient: NDArray[np.floating], centre: tuple[int, int], mass: float = MASS) -> int:
    """Side of the smallest square about `centre` (y, x) that holds the share `mass` of the sum of a map (H, W).

    In pixels, odd. Where the centre lies beside the picture's middle the square may reach beyond it. A map that is
    the same everywhere has a side of 98 % of the picture's at 95.45 %, and of 71 % at one half. Luo et al. count the
    pixels above 4.55 % of the centre's value, which hangs on the height of one pixel; this hangs on all.
    """
    rows, columns = (np.abs(np.arange(n) - c) for n, c in zip(gradient.shape, centre, strict=True))
    far = np.maximum(rows[:, None], columns[None])
    within = np.bincount(far.ravel(), weights=gradient.astype(np.float64).ravel()).cumsum()
    return 2 * int(np.searchsorted(within, mass * within[-1])) + 1


def newly_initialised(config: ModelConfig, pictures: Tensor, seed: int = 0) -> Model:
    """A model of this architecture with random weights, its batch norms estimated on `pictures` (N, c, H, W).

    Without that they would pass on what they get, and a deep network's activations grow or die out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(replace(config, fake_quantize={}))
    estimate_batch_norms(model, pictures)
    return model


def estimate_batch_norms(model: nn.Module, pictures: Tensor) -> None:
    """Set every running mean and variance to what `pictures` (N, c, H, W) give, and leave evaluation mode on.

    Of more than `TOGETHER` pictures it is the mean over passes.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over passes
        norm.train()
    with torch.no_grad():
        for batch in pictures.split(TOGETHER):
            model.scores(batch)  # type: ignore[operator]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def read_pictures(paths: Sequence[str | Path], size: tuple[int, int], limit: int) -> list[NDArray[np.uint8]]:
    """The first pictures of files and folders, as (H, W, 3) uint8: resized to cover `size`, the middle cut out."""
    files = list(find_pictures(paths).values())[:limit]
    return [
        np.asarray(ImageOps.fit(Image.fromarray(read_image(file)), size[::-1], Image.Resampling.BILINEAR))
        for file in files
    ]


def normalised(pictures: Sequence[NDArray[np.uint8]], normalization: Normalization) -> Tensor:
    """Pictures (H, W, 3) as a network wants them: (N, 3, H, W) float32."""
    mean, std = (np.array(values, np.float32) for values in (normalization.mean, normalization.std))
    values = (np.stack(pictures).astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()


def table(fields: Sequence[ReceptiveField], name: str, about: str) -> Table:
    """Sides in pixels, and the effective one's share of the theoretical one, as a table for `rich`."""
    lines = Table(title=f"receptive field of {name}", caption=about)
    lines.add_column("weights")
    for title in ("theoretical", f"effective, {MASS:.2%}", "share", "effective, half"):
        lines.add_column(title, justify="right")
    pooled = any(field.pools for field in fields)
    for field in fields:
        lines.add_row(
            field.weights + (", without global pools" if pooled and not field.pools else ""),
            "the whole picture" if field.pools else f"{field.theoretical} px",
            f"{field.effective} px",
            f"{field.effective / field.theoretical:.1%}",
            f"{field.half} px",
        )
    return lines
