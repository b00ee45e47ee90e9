"""DeepLab v1: Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs.

Chen, Papandreou, Kokkinos, Murphy, Yuille, ICLR 2015, https://arxiv.org/abs/1412.7062

    LargeFOV (sec. 3.1, 3.2), on the grid of output stride 8: a picture of 321 gives scores of 41

    image - VGG-16, conv5 with rate 2 - fc6 3x3 rate 12, 1024 - fc7 1x1, 1024 - fc8 1x1, C
                                             ReLU, dropout 0.5      ReLU, dropout 0.5

    msc=True (sec. 4.3, "multi-scale prediction"): five more rows of scores are added to fc8's

    image, pool1 .. pool4 - 3x3 conv 128, stride 8, 4, 2, 1, 1 - 1x1 conv 128 - 1x1 C
                               ReLU, dropout 0.5    ReLU, dropout 0.5

The fully connected layers of VGG-16 become convolutions; "LargeFOV" is the one whose fc6 is small and
atrous, with 20.5 M parameters in place of 134.3 M (tab. 2). Dense CRF follows it: `atrous.crf`.

PASCAL VOC 2012 val mIoU: 62.25, with CRF 67.64, with msc and CRF 68.70. The training: crop 321, batch 20,
learning rate 1e-3 and 1e-2 for fc8, a tenth of it every 2,000 of 6,000 iterations, the loss on the grid of
the scores (sec. 5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from atrous.backbones.base import Backbone, picture_channels
from atrous.config import ModelConfig
from atrous.crf import CRFHead
from atrous.errors import InputError
from atrous.layers import classifier, resize, scale_rates

MULTI_SCALE_CHANNELS = 128  # sec. 4.3


def fully_connected(
    in_channels: int, num_classes: int, rate: int, kernel: int, channels: int
) -> nn.Sequential:
    """VGG's fully connected layers as convolutions: (N, in_channels, h, w) to scores (N, C, h, w).

    Raises InputError where the atrous kernel has no centre: an even kernel and an odd rate.
    """
    reach = rate * (kernel - 1)
    if reach % 2:
        raise InputError(f"fc6 with kernel {kernel} and rate {rate} has no centre: take an even rate")
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Conv2d(in_channels, channels, kernel, padding=reach // 2, dilation=rate),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(0.5),
            fc7=nn.Conv2d(channels, channels, 1),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc8=classifier(channels, num_classes),
        )
    )


def scale_branch(in_channels: int, num_classes: int, stride: int) -> nn.Sequential:
    """Scores from a shallow map (sec. 4.3): (N, in_channels, h, w) to (N, C, h/stride, w/stride)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, MULTI_SCALE_CHANNELS, 3, stride, padding=1),
            relu1=nn.ReLU(inplace=True),
            drop1=nn.Dropout(0.5),
            conv2=nn.Conv2d(MULTI_SCALE_CHANNELS, MULTI_SCALE_CHANNELS, 1),
            relu2=nn.ReLU(inplace=True),
            drop2=nn.Dropout(0.5),
            fc8=classifier(MULTI_SCALE_CHANNELS, num_classes),
        )
    )


class DeepLabV1(nn.Module):
    """DeepLab v1 on VGG-16 or any other backbone; the paper's output stride is 8.

    Args:
        backbone: a built backbone.
        num_classes: C.
        msc: the multi-scale features of sec. 4.3.
        fc6_rate: rate of fc6 at output stride 8, in proportion at others.
        fc6_kernel: its kernel. The paper's table 2 compares 7x7 rate 4, 4x4 rate 4 and 8, 3x3 rate 12.
        fc_channels: channels of fc6 and fc7; 1024 for LargeFOV, 4096 for the other three.
        align_corners: of the resize to the picture's size.
        crf: the dense CRF as a last layer that is trained with the network (`atrous.crf.CRFHead`); a dict has its
            options. Scores are then log-probabilities on the picture's own grid.
    """

    config: ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        msc: bool = False,
        fc6_rate: int = 12,
        fc6_kernel: int = 3,
        fc_channels: int = 1024,
        align_corners: bool = False,
        crf: bool | dict[str, float] = False,
    ) -> None:
        super().__init__()
        (rate,) = scale_rates([fc6_rate], 8, backbone.output_stride)
        self.backbone = backbone
        self.head = fully_connected(backbone.channels[-1], num_classes, rate, fc6_kernel, fc_channels)
        # the image itself, then every stage but the last: VGG's pool1 .. pool4
        channels = (picture_channels(backbone), *backbone.channels[:-1])
        strides = (1, *backbone.strides[:-1])
        self.scale_branches = nn.ModuleList(
            scale_branch(c, num_classes, backbone.output_stride // stride)
            for c, stride in zip(channels, strides, strict=True)
            if msc
        )
        self.align_corners = align_corners
        self.crf = CRFHead(**(crf if isinstance(crf, dict) else {})) if crf is not False else None

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Logits on the grid of the output stride, where v1 takes its loss: "out" (N, C, H/8, W/8); see `crf`."""
        features = self.backbone(x)
        out: Tensor = self.head(features[-1])
        for branch, shallow in zip(self.scale_branches, (x, *features[:-1]), strict=False):
            out = out + resize(branch(shallow), out.shape[-2:], self.align_corners)
        if self.crf is not None:
            out = self.crf(x, resize(out, x.shape[-2:], self.align_corners))
        return {"out": out}

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W from 1 up, to logits (N, C, H, W)."""
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def initialise_from_vgg(self, decimated: Mapping[str, Tensor]) -> None:
        """Start fc6 and fc7 from VGG's own (sec. 3.2), as `backbones.vgg.decimate_fc` gives them.

        For LargeFOV on VGG-16; another kernel or number of channels keeps its random start.
        """
        if self.head.state_dict()["fc6.weight"].shape == decimated["fc6.weight"].shape:
            self.head.load_state_dict(dict(decimated), strict=False)

    def learning_rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the multiple of the learning rate: 10 for the last layers, otherwise 1 (sec. 5)."""
        last = [p for name, p in self.named_parameters() if ".fc8." in name]
        rest = [p for name, p in self.named_parameters() if ".fc8." not in name]
        return [(rest, 1.0), (last, 10.0)]
