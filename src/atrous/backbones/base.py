"""What a backbone promises: feature maps from shallow to deep, with their channels and strides."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Literal

from torch import Tensor, nn

from atrous.errors import InputError
from atrous.layers import Dilated


class Backbone(nn.Module):
    """`forward(x: (N, in_channels, H, W))` returns one feature map per stage, shallow to deep.

    Stage i has `channels[i]` channels and lies on the grid H / strides[i] (rounded up). The stages are
    those of the plain network (strides 2, 4, 8, 16, 32); with `output_stride=8` the `strides` read
    (2, 4, 8, 8, 8): the last stages stay where they are and dilate.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    smallest: int = 1  # sides in pixels of the smallest picture that it takes

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    @property
    def output_stride(self) -> int:
        return self.strides[-1]

    def keep_stages(self, count: int, after_first: Sequence[nn.Module]) -> None:
        """Promise the first `count` stages alone; of the others, `after_first[i]` is stage i + 1, nothing is trained.

        Raises InputError for a count that is not 2 .. the number of stages.
        """
        if not 2 <= count <= len(self.channels):
            raise InputError(f"encoder_depth={count} must be 2 to {len(self.channels)}")
        self.channels, self.strides = self.channels[:count], self.strides[:count]
        for stage in after_first[count - 1 :]:
            stage.requires_grad_(False)

    def stage_at(self, stride: int) -> int:
        """Index of the deepest stage on the grid of `stride` (4: the low-level features of DeepLab v3+).

        Raises InputError where there is none.
        """
        stages = [i for i, s in enumerate(self.strides) if s == stride]
        if not stages:
            raise InputError(
                f"{type(self).__name__} at output stride {self.output_stride} has no features at stride {stride}, "
                f"which this model needs, only at {', '.join(map(str, sorted(set(self.strides))))}: give another "
                "output_stride or backbone"
            )
        return stages[-1]


DilateFrom = Literal["first", "second", "next", "only_first"]


def block_rates(plan: Dilated, blocks: int, dilate_from: DilateFrom = "second") -> list[int]:
    """The atrous rate of each block of a stage that lost its stride. Networks trained elsewhere differ here:

    "second"  the convolution that had the stride keeps the old rate, the next ones have the new: the grid of
              the plain network, exactly (torchvision's ResNets, timm, Google's MobileNetV2)
    "first"   the whole stage has the new rate (Caffe's and TF's ResNets, torchvision's MobileNetV3)
    "next"    the whole stage keeps the old rate; the new one begins with the next stage
    "only_first"  the first block has the new rate, all others rate 1 (mmsegmentation's MobileNetV2)

    >>> block_rates(Dilated(stride=1, first_dilation=1, dilation=2), blocks=3)
    [1, 2, 2]
    """
    first = plan.dilation if dilate_from in ("first", "only_first") else plan.first_dilation
    rest = {"next": plan.first_dilation, "only_first": 1}.get(dilate_from, plan.dilation)
    return [first] + [rest] * (blocks - 1)


def picture_channels(network: nn.Module) -> int:
    """Channels of the picture that a network takes: those of its first convolution."""
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


def run_stages(layers: Iterable[nn.Module], ends: Container[int], x: Tensor) -> list[Tensor]:
    """Run layers in a row; returned: what those numbered in `ends` gave."""
    stages = []
    for i, layer in enumerate(layers):
        x = layer(x)
        if i in ends:
            stages.append(x)
    return stages


def stage_strides(plan: Sequence[Dilated]) -> list[int]:
    """The stride at which each layer of a plan leaves its features, counted from the image."""
    strides, stride = [], 1
    for layer in plan:
        stride *= layer.stride
        strides.append(stride)
    return strides


def init_weights(network: nn.Module) -> None:
    """Convolutions as in He et al. 2015 (arXiv 1502.01852), fan out; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def set_batch_norm(network: nn.Module, eps: float, momentum: float) -> None:
    """Give every batch norm the constants of the project whose weights the network is made for."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum
