"""What a backbone promises: feature maps from shallow to deep, with their channels and strides."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """`forward(x: (N, in_channels, H, W))` returns one feature map per stage, shallow to deep.

    Stage i has `channels[i]` channels and lies on the grid H / strides[i] (rounded up). The stages are
    those of the plain network (strides 2, 4, 8, 16, 32); with `output_stride=8` the `strides` read
    (2, 4, 8, 8, 8): the last stages stay where they are and dilate.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    @property
    def output_stride(self) -> int:
        return self.strides[-1]

    def stage_at(self, stride: int) -> int:
        """Index of the deepest stage on the grid of `stride` (4: the low-level features of DeepLab v3+)."""
        stages = [i for i, s in enumerate(self.strides) if s == stride]
        if not stages:
            raise ValueError(f"{type(self).__name__} has no features at stride {stride}, only at {self.strides}")
        return stages[-1]
