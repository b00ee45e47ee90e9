"""VGG-16 as DeepLab v1 and v2 use it: 3x3 pools, no stride after pool3, atrous conv5.

Simonyan, Zisserman. Very deep convolutional networks for large-scale image recognition. ICLR 2015.
arXiv 1409.1556.
Chen, Papandreou, Kokkinos, Murphy, Yuille. Semantic image segmentation with deep convolutional nets and fully
connected CRFs. ICLR 2015. arXiv 1412.7062 (DeepLab v1, sec. 3.1).

    image -> conv1 x2, pool1 -> conv2 x2, pool2 -> conv3 x3, pool3 -> conv4 x3, pool4 -> conv5 x3, pool5, avg
    stage           [0] /2            [1] /4             [2] /8             [3] /8             [4] /8
    rate              1                 1                  1                  1                  2

The five pools are the five stages (the multi-scale variant of v1 reads pool1 .. pool4). Parameter names are
those of torchvision's vgg16, so its state dict loads as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from atrous.backbones.base import Backbone, init_weights, stage_strides
from atrous.layers import dilate

# VGG paper, Table 1, column D: (convolutions, channels) before each pool
BLOCKS = (
    (2, 64),
    (2, 128),
    (3, 256),
    (3, 512),
    (3, 512),
)
POOL_STRIDES = (2, 2, 2, 2, 2)


class VGG(Backbone):
    """(N, in_channels, H, W) -> pool1 .. pool5: channels (64, 128, 256, 512, 512).

    At output stride 8 (the papers): strides (2, 4, 8, 8, 8), conv5 has rate 2.
    """

    def __init__(
        self,
        blocks: tuple[tuple[int, int], ...] = BLOCKS,
        *,
        output_stride: int = 8,
        in_channels: int = 3,
        average_pool: bool = True,
        ceil_mode: bool = False,
    ) -> None:
        """
        output_stride  8 in the papers; 16, 32 and 4 by the same rule
        average_pool   3x3 average pool with stride 1 after pool5 (v1's LargeFOV network)
        ceil_mode      the pools round sizes up (Caffe): one more row and column for even sizes

        Raises InputError for an output stride the network cannot have.
        """
        super().__init__()
        plan = dilate(POOL_STRIDES, output_stride)
        self.features = nn.Sequential()
        ends = []  # the index of each pool in `features`
        for (convolutions, channels), pool in zip(blocks, plan, strict=True):
            rate = pool.first_dilation  # these come before the pool: they are on the grid it reads
            for _ in range(convolutions):
                self.features.append(nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate))
                self.features.append(nn.ReLU(inplace=True))
                in_channels = channels
            ends.append(len(self.features))
            self.features.append(nn.MaxPool2d(3, pool.stride, padding=1, ceil_mode=ceil_mode))
        # Caffe's average pool counts the padding too, as PyTorch's does
        self.average_pool = nn.AvgPool2d(3, stride=1, padding=1) if average_pool else nn.Identity()

        self._ends = tuple(ends)
        self.channels = tuple(channels for _, channels in blocks)
        self.strides = tuple(stage_strides(plan))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        pools = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._ends:
                pools.append(x)
        pools[-1] = self.average_pool(pools[-1])
        return pools


def decimate_fc(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Initial weights of DeepLab's fc6 and fc7 out of the classifier of torchvision's vgg16 (v1 sec. 3.2).

    fc6 (4096, 512*7*7) -> (1024, 512, 3, 3): every fourth output, every third row and column.
    fc7 (4096, 4096) -> (1024, 1024, 1, 1): every fourth output and input.

    Returns the keys fc6.weight, fc6.bias, fc7.weight, fc7.bias. Raises KeyError without the classifier.
    """
    fc6 = state_dict["classifier.0.weight"].view(4096, 512, 7, 7)
    fc7 = state_dict["classifier.3.weight"].view(4096, 4096, 1, 1)
    return {
        "fc6.weight": fc6[::4, :, ::3, ::3].clone(),
        "fc6.bias": state_dict["classifier.0.bias"][::4].clone(),
        "fc7.weight": fc7[::4, ::4].clone(),
        "fc7.bias": state_dict["classifier.3.bias"][::4].clone(),
    }


vgg16 = partial(VGG, BLOCKS)
