"""Residual networks: ResNet-18, 34, 50, 101, 152, with atrous convolution.

He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016. arXiv 1512.03385.

    image -> conv1 7x7 /2 -> max pool 3x3 /2 -> conv2_x -> conv3_x /2 -> conv4_x /2 -> conv5_x /2
    stages:  [0] conv1          (stride 2)       [1]        [2]          [3]           [4]

    basic block    x -> 3x3 -> 3x3 ---------(+)-> ReLU      conv = convolution, batch norm, ReLU
                   x -----------------------(+)             (no ReLU before the sum)
    bottleneck     x -> 1x1 -> 3x3 -> 1x1 --(+)-> ReLU      the last 1x1 has 4 times the channels
                   x -> (1x1 where shapes differ) (+)

With `output_stride` 16 or 8 the last strides become 1 and the 3x3 convolutions dilate (DeepLab v2 sec. 4.1,
v3 sec. 3.2). Parameter names are torchvision's, so its state dicts load as they are, and timm's too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from atrous.backbones.base import Backbone, DilateFrom, block_rates, init_weights, stage_strides
from atrous.errors import InputError, choose
from atrous.layers import BatchNorm2d, Dilated, Padding, SameMaxPool2d, dilate

# paper, Table 1   (stride of: conv1, max pool, conv2_x, conv3_x, conv4_x, conv5_x)
STRIDES = (2, 2, 1, 2, 2, 2)
STRIDES_AT_LAST = (2, 2, 2, 2, 2, 1)  # where the last unit of a block has the next one's stride
CHANNELS = (64, 128, 256, 512)  # of the 3x3 convolutions in conv2_x .. conv5_x
STEM_CHANNELS = 64
DEEP_STEM_CHANNELS = (64, 64, 128)  # three 3x3 in place of the 7x7: PSPNet and Google's DeepLab ResNets


Shortcut = Literal["conv", "average", "subsample"]
StrideAt = Literal["first", "last"]


class ResidualBlock(nn.Module):
    """What is the same in both blocks (paper, Fig. 2): ReLU(F(x) + x)."""

    relu: nn.ReLU
    downsample: nn.Module | None

    def residual(self, x: Tensor) -> Tensor:
        """F(x): what is added to the shortcut."""
        raise NotImplementedError

    def shortcut(self, x: Tensor) -> Tensor:
        """x, where shapes differ by a projection."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x).add_(self.shortcut(x)))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut (paper, Fig. 5 left): (N, C_in, H, W) -> (N, C, H/s, W/s)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
        stride_on_first_1x1: bool = False,
        shortcut: Shortcut = "conv",
    ) -> None:
        """`first_dilation` is the rate of the convolution with the stride, `dilation` that of the other.

        There is no 1x1 here to put the stride on, so `stride_on_first_1x1` changes nothing.
        """
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride, first_dilation)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, 1, dilation)
        self.bn2 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride, shortcut)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 and a shortcut (paper, Fig. 5 right): (N, C_in, H, W) -> (N, 4C, H/s, W/s)."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
        stride_on_first_1x1: bool = False,
        shortcut: Shortcut = "conv",
    ) -> None:
        """The stride is on the 3x3 (torchvision), or on the first 1x1 (the paper, Caffe).

        On the 3x3, that convolution keeps the old rate `first_dilation`. On the first 1x1, the 3x3 is
        among those that follow and has `dilation`.
        """
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_on_first_1x1 else (1, stride)
        rate = dilation if stride_on_first_1x1 else first_dilation
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride_1x1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride_3x3, rate)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * channels, stride, shortcut)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


def make_stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    channels: int,
    blocks: int,
    plan: Dilated,
    *,
    multi_grid: Sequence[int] = (1,),
    stride_on_first_1x1: bool = False,
    dilate_from: DilateFrom = "second",
    average_shortcut: bool = False,
    stride_at: StrideAt = "first",
) -> nn.Sequential:
    """One of conv2_x .. conv5_x, or a copy appended after conv5_x (the cascade of DeepLab v3, sec. 3.2).

    `channels` are those of the 3x3 convolutions; the stage gives `channels * block.expansion`. `plan` is
    the stage's entry in `layers.dilate(...)`. `multi_grid` multiplies the rates block by block (DeepLab v3
    sec. 3.2.1); `(1,)` leaves them. `dilate_from`: see `base.block_rates`.

    Raises InputError where `multi_grid` has neither one number nor one for each block.
    """
    grid = tuple(multi_grid) * blocks if len(multi_grid) == 1 else tuple(multi_grid)
    if len(grid) != blocks:
        raise InputError(
            f"multi_grid={tuple(multi_grid)} has {len(grid)} rates, the stage has {blocks} blocks"
        )
    first_rate, rate = block_rates(plan, 2, dilate_from)
    shortcut: Shortcut = "average" if average_shortcut else "conv" if stride_at == "first" else "subsample"
    strided = 0 if stride_at == "first" else blocks - 1
    stage = nn.Sequential()
    for i, unit in enumerate(grid):
        stage.append(
            block(
                in_channels,
                channels,
                stride=plan.stride if i == strided else 1,
                first_dilation=unit * (first_rate if i == 0 else rate),
                dilation=unit * rate,
                stride_on_first_1x1=stride_on_first_1x1,
                shortcut=shortcut,
            )
        )
        in_channels = channels * block.expansion
    return stage


class ResNet(Backbone):
    """(N, in_channels, H, W) -> five maps: conv1, conv2_x, conv3_x, conv4_x, conv5_x.

    With bottlenecks: channels (64, 256, 512, 1024, 2048). Strides (2, 4, 8, 16, 32); those beyond
    `output_stride` stay at it.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        deep_stem: bool | Sequence[int] = False,
        multi_grid: Sequence[int] = (1,),
        dilate_from: DilateFrom = "second",
        stride_on_first_1x1: bool = False,
        ceil_mode: bool = False,
        average_shortcut: bool = False,
        stride_at: StrideAt = "first",
        pool_padding: Padding = "symmetric",
        encoder_depth: int = 5,
    ) -> None:
        """
        output_stride        32, 16, 8 (also 4, 2): input size / size of the last features
        deep_stem            conv1 as three 3x3 with 64, 64, 128 channels (PSPNet; Google's "beta" ResNets), or with
                             the three numbers given (mmsegmentation, timm: 32, 32, 64)
        multi_grid           rates inside conv5_x, times the base rate: (1, 2, 4) in DeepLab v3 sec. 4.1
        dilate_from          "second": the first 3x3 of a stage that lost its stride keeps the old rate
                             (torchvision, timm); "first": it has the new rate already (Caffe, TF, most); "next":
                             the stage keeps the old rate, times multi_grid (mmsegmentation's D16-MG124)
        stride_on_first_1x1  Caffe's bottleneck, as in DeepLab v2; torchvision's has the stride on the 3x3
        ceil_mode            the max pool rounds sizes up (Caffe): one more row and column for even sizes
        average_shortcut     a shortcut with a stride is a 2x2 average pool and a 1x1 without ("vd", PaddleSeg)
        stride_at            "last": the last unit of conv2_x .. conv4_x has the stride of the block behind it, and the
                             features at strides 4 .. 16 are what the unit before it adds; with dilate_from="next"
                             (Google's)
        pool_padding         "same": the max pool has TensorFlow's padding (Google's)
        encoder_depth        the stages that are run and give features, 2 .. 5; those behind only keep their weights
                             (segmentation_models)

        Raises InputError for an output stride the network cannot have.
        """
        super().__init__()
        self.stride_at = choose("stride_at", stride_at, ("first", "last"))
        plan = dilate(STRIDES if stride_at == "first" else STRIDES_AT_LAST, output_stride)
        # the cascade of DeepLab v3 repeats them
        self.multi_grid, self.dilate_from = tuple(multi_grid), dilate_from
        self.conv1, stem_channels = _stem(in_channels, plan[0].stride, deep_stem)
        self.bn1 = BatchNorm2d(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, plan[1].stride, padding=1, ceil_mode=ceil_mode)
        if choose("pool_padding", pool_padding, ("symmetric", "same")) == "same":
            self.maxpool = SameMaxPool2d(3, plan[1].stride)

        stage = partial(
            make_stage,
            block,
            stride_on_first_1x1=stride_on_first_1x1,
            dilate_from=dilate_from,
            average_shortcut=average_shortcut,
            stride_at=stride_at,
        )
        c2, c3, c4, c5 = (channels * block.expansion for channels in CHANNELS)
        self.layer1 = stage(stem_channels, CHANNELS[0], blocks[0], plan[2])
        self.layer2 = stage(c2, CHANNELS[1], blocks[1], plan[3])
        self.layer3 = stage(c3, CHANNELS[2], blocks[2], plan[4])
        self.layer4 = stage(c4, CHANNELS[3], blocks[3], plan[5], multi_grid=multi_grid)

        self.channels = (stem_channels, c2, c3, c4, c5)
        inside = 0 if stride_at == "first" else 1  # the features are taken before the stride
        self.strides = tuple(stage_strides(plan)[i] for i in (0, *(i - inside for i in (2, 3, 4)), 5))
        self.keep_stages(encoder_depth, (self.layer1, self.layer2, self.layer3, self.layer4))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4)[: len(self.channels) - 1]:
            if self.stride_at == "last" and layer is not self.layer4:
                x, inside = self._before_stride(layer, x)
                features.append(inside)
                continue
            x = layer(x)
            features.append(x)
        return features

    def _before_stride(self, stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's output, and what its last unit but one adds."""
        for unit in stage[:-2]:
            x = unit(x)
        unit = stage[-2]
        inside = unit.residual(x)  # type: ignore[operator]
        return stage[-1](unit.relu(inside + unit.shortcut(x))), inside  # type: ignore[operator]


def _stem(in_channels: int, stride: int, deep: bool | Sequence[int]) -> tuple[nn.Module, int]:
    """conv1 without its last batch norm, and its channels. Names of the deep stem: timm's resnet50s."""
    if not deep:
        return nn.Conv2d(in_channels, STEM_CHANNELS, 7, stride, padding=3, bias=False), STEM_CHANNELS
    widths = DEEP_STEM_CHANNELS if deep is True else tuple(deep)
    if len(widths) != 3:
        raise InputError(f"deep_stem={widths} must be three numbers of channels")
    a, b, c = widths
    stem = nn.Sequential(
        _conv3x3(in_channels, a, stride),
        BatchNorm2d(a),
        nn.ReLU(inplace=True),
        _conv3x3(a, b),
        BatchNorm2d(b),
        nn.ReLU(inplace=True),
        _conv3x3(b, c),
    )
    return stem, c


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=rate, dilation=rate, bias=False)


def _shortcut(
    in_channels: int, out_channels: int, stride: int, kind: Shortcut = "conv"
) -> nn.Sequential | None:
    """The identity (None) where shapes agree, otherwise a 1x1 projection (paper, sec. 3.3, option B).

    kind: where there is a stride, "average" has it in a 2x2 average pool before the 1x1, and "subsample" has no 1x1
    where the channels agree.
    """
    if in_channels == out_channels and stride == 1:
        return None
    if in_channels == out_channels and kind == "subsample":
        return nn.Sequential(nn.MaxPool2d(1, stride))
    layers: dict[str, nn.Module] = {}
    if kind == "average" and stride > 1:
        layers["pool"] = nn.AvgPool2d(stride, stride, ceil_mode=True)
        stride = 1
    layers["0"] = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    layers["1"] = BatchNorm2d(out_channels)
    return nn.Sequential(OrderedDict(layers))


# paper, Table 1                              conv2_x conv3_x conv4_x conv5_x
resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
BOTTLENECK_RESNETS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}  # by the units of conv4_x
