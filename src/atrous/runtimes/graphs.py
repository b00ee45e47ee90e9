"""What is exported: a network as one function of tensors, from the picture to logits or to labels."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.config import Normalization
from atrous.layers import AlignCorners, resize

Output = Literal["logits", "labels", "scores"]


class Scores(nn.Module):
    """Pictures (N, c, H, W), normalised, to logits on the network's own grid (N, C, h, w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model.scores(image)["out"]  # type: ignore[operator]
        return out


class Logits(nn.Module):
    """Pictures (N, c, H, W), normalised, to logits at their size (N, C, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)
        return logits


class LabelMaps(nn.Module):
    """RGB pictures (N, 3, H, W) uint8 to labels (N, H, W), uint8 up to 256 classes, else int32.

    Normalised and padded with the mean colour to whole strides, as the mode "direct" of `atrous.config.Protocol`.
    """

    def __init__(
        self,
        model: nn.Module,
        normalization: Normalization,
        output_stride: int,
        num_classes: int,
        align_corners: AlignCorners,
    ) -> None:
        super().__init__()
        self.model, self.align_corners, self.stride = model, align_corners, output_stride
        self.kind = torch.uint8 if num_classes <= 256 else torch.int32
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1) for values in (normalization.mean, normalization.std)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image).argmax(1).to(self.kind)

    def logits(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to logits (N, C, H, W)."""
        height, width = image.shape[-2:]
        x = image.float() * self.scale + self.shift  # type: ignore[operator]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        coarse = self.model.scores(x)["out"]  # type: ignore[operator]
        logits = resize(coarse, x.shape[-2:], self.align_corners)
        return logits[..., :height, :width]
