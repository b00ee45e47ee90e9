"""The dense CRF as a layer to train end to end: CRF-RNN (Zheng et al., ICCV 2015, arXiv 1502.03240)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.crf.mean_field import (
    DenseCRF,
    at_least_float32,
    bilateral_features,
    check_image,
    position_features,
)
from atrous.crf.model import MeanField, Pairwise
from atrous.crf.unary import unary_from_logits
from atrous.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CRFLayer(nn.Module):
    """The dense CRF as a layer to train end to end (CRF-RNN, Zheng et al. 2015): kernels fixed, the rest learned.

    Learns pos_w, bi_w and, where `num_classes` is given, a (C, C) label compatibility that starts as Potts.
    forward(image (N, H, W, 3) uint8, logits (N, C, H, W)) -> log-probabilities (N, C, H, W).
    """

    def __init__(
        self,
        iter_max: int = 5,  # CRF-RNN trains with 5 iterations and tests with 10
        pos_w: float = 3,
        pos_xy_std: float = 1,
        bi_w: float = 4,
        bi_xy_std: float = 67,
        bi_rgb_std: float = 3,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.crf = DenseCRF(iter_max, pos_w, pos_xy_std, bi_w, bi_xy_std, bi_rgb_std)
        self.pos_w = nn.Parameter(torch.tensor(float(pos_w)))
        self.bi_w = nn.Parameter(torch.tensor(float(bi_w)))
        self.compatibility = nn.Parameter(1 - torch.eye(num_classes)) if num_classes else None

    def forward(self, image: Tensor, logits: Tensor) -> Tensor:
        """Return the refined log-probabilities, (N, C, H, W)."""
        unary = unary_from_logits(at_least_float32(logits), dim=1)
        pixels = check_image(image, unary).to(unary.device)
        return torch.stack([self._one(x, u) for x, u in zip(pixels, unary, strict=True)])

    def _one(self, pixels: Tensor, unary: Tensor) -> Tensor:
        position = position_features(pixels.shape[:2], self.crf.pos_xy_std, unary.device)
        bilateral = bilateral_features(pixels, self.crf.bi_xy_std, self.crf.bi_rgb_std)
        mu = 1.0 if self.compatibility is None else self.compatibility
        terms = [Pairwise(position, self.pos_w * mu), Pairwise(bilateral, self.bi_w * mu)]
        q = MeanField(unary.flatten(1), terms).run(self.crf.iter_max)
        return q.clamp(min=1e-20).log().reshape(unary.shape)


class CRFHead(nn.Module):
    """A `CRFLayer` behind a network, which sees the network's own input: normalised pictures.

    forward(x (N, 3, H, W), logits (N, C, H, W)) -> log-probabilities (N, C, H, W). `options`: of `CRFLayer`. What the
    pictures were normalised with is part of the state: ImageNet's constants unless `set_normalization` says otherwise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, **options: float) -> None:
        super().__init__()
        try:
            self.layer = CRFLayer(**options)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(f"crf: {str(error).replace('CRFLayer.__init__() ', '')}") from None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Tell what pictures of 0..1 are normalised with: (x - mean) / std, per channel of RGB."""
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise InputError(
                f"crf: the CRF compares colours of RGB pictures, these have {x.shape[1]} channels"
            )
        with torch.no_grad():
            pictures = x.float() * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
            pixels = (255 * pictures).round().clamp(0, 255).to(torch.uint8)
        refined: Tensor = self.layer(pixels.permute(0, 2, 3, 1), logits)
        return refined
