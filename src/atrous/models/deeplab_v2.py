"""DeepLab v2: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and
Fully Connected CRFs.

Chen, Papandreou, Kokkinos, Murphy, Yuille, TPAMI 2018, https://arxiv.org/abs/1606.00915

    on a ResNet (sec. 4.1)                            on VGG-16 (fig. 7)

                +- 3x3, rate  6, C -+                            +- fc6 rate  6 - fc7 - fc8 -+
    ResNet-101 -+- 3x3, rate 12, C -+- sum            VGG-16 ----+- fc6 rate 12 - fc7 - fc8 -+- sum
    output      +- 3x3, rate 18, C -+                            +- fc6 rate 18 - fc7 - fc8 -+
    stride 8    +- 3x3, rate 24, C -+                            +- fc6 rate 24 - fc7 - fc8 -+

    msc=True (sec. 3.2, 4.1.2): the picture at scales 0.5, 0.75 and 1 through the same net, scores brought
    to the largest grid, and there the element-wise maximum

Atrous spatial pyramid pooling (ASPP): one feature map, looked at with several fields of view. Dense CRF
follows it: `atrous.crf`.

PASCAL VOC 2012 val mIoU, ResNet-101: 68.72, with msc 71.27, with COCO 73.28, with random scales 74.87,
LargeFOV 75.54, ASPP 76.35, with CRF 77.69 (tab. 4). VGG-16 with ASPP-L 68.96, with CRF 71.57 (tab. 3). The
training: crop 321, batch 10, 20,000 iterations, poly 0.9 from 2.5e-4, the loss on the grid of the scores
(sec. 4.1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.backbones.vgg import VGG
from atrous.config import ModelConfig
from atrous.crf import CRFHead
from atrous.errors import choose
from atrous.layers import SCALES, classifier, max_over_scales, resize, scale_rates

# at output stride 8 (sec. 4.1.2)
HEADS: dict[str, tuple[int, ...]] = {
    "aspp_l": (6, 12, 18, 24),
    "aspp_s": (2, 4, 8, 12),
    "large_fov": (12,),
}


def score_conv(in_channels: int, num_classes: int, rate: int) -> nn.Conv2d:
    """One branch on a ResNet: an atrous 3x3 convolution straight to the scores."""
    return classifier(in_channels, num_classes, 3, rate)


def fc_branch(in_channels: int, num_classes: int, rate: int) -> nn.Sequential:
    """One branch on VGG-16 (fig. 7b): its fully connected layers as convolutions, fc6 atrous."""
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Conv2d(in_channels, 1024, 3, padding=rate, dilation=rate),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(0.5),
            fc7=nn.Conv2d(1024, 1024, 1),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc8=classifier(1024, num_classes),
        )
    )


class DeepLabV2(nn.Module):
    """DeepLab v2 on any backbone; the paper's output stride is 8.

    Args:
        backbone: a built backbone. On a VGG each branch is fc6-fc7-fc8, on others one 3x3 convolution.
        num_classes: C.
        head: "aspp_l" (rates 6, 12, 18, 24), "aspp_s" (2, 4, 8, 12) or "large_fov" (12), at output stride 8
            and in proportion at others.
        atrous_rates: rates of the branches as they are, in place of the head's.
        msc: the maximum over three scales of the picture.
        align_corners: of every resize.
        crf: the dense CRF as a last layer that is trained with the network (`atrous.crf.CRFHead`); a dict has its
            options. Scores are then log-probabilities on the picture's own grid.

    Raises InputError for an unknown head.
    """

    config: ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        head: Literal["aspp_l", "aspp_s", "large_fov"] = "aspp_l",
        atrous_rates: Sequence[int] | None = None,
        msc: bool = False,
        align_corners: bool = False,
        crf: bool | dict[str, float] = False,
    ) -> None:
        super().__init__()
        rates = scale_rates(HEADS[choose("head", head, HEADS)], 8, backbone.output_stride)
        rates = rates if atrous_rates is None else tuple(atrous_rates)
        channels = backbone.channels[-1]
        self.backbone = backbone
        branch = fc_branch if isinstance(backbone, VGG) else score_conv
        self.branches = nn.ModuleList(branch(channels, num_classes, rate) for rate in rates)
        self.scales = SCALES if msc else (1.0,)
        self.align_corners = align_corners
        self.crf = CRFHead(**(crf if isinstance(crf, dict) else {})) if crf is not False else None

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Logits on the grid of the output stride: "out" (N, C, h, w).

        With `msc` in training also "scale_0.5", "scale_0.75" and "scale_1", each on its own grid: the paper
        adds up four losses (sec. 4.1.2).
        """
        scores = max_over_scales(
            self._branch_sum, x, self.scales, training=self.training, align_corners=self.align_corners
        )
        if self.crf is not None:
            scores["out"] = self.crf(x, resize(scores["out"], x.shape[-2:], self.align_corners))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W from 1 up, to logits (N, C, H, W)."""
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def _branch_sum(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)[-1]
        total: Tensor = self.branches[0](features)
        for branch in self.branches[1:]:
            total = total + branch(features)
        return {"out": total}

    def initialise_from_vgg(self, decimated: Mapping[str, Tensor]) -> None:
        """Start fc6 and fc7 of every branch from VGG's own, as `backbones.vgg.decimate_fc` gives them."""
        for branch in self.branches:
            if isinstance(branch, nn.Sequential):
                branch.load_state_dict(dict(decimated), strict=False)

    def learning_rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the multiple of the learning rate: 1, and for the layers that end in scores 10 and
        for their biases 20 (sec. 4.1; 20 from the authors' prototxt).
        """
        groups: dict[float, list[nn.Parameter]] = {1.0: [], 10.0: [], 20.0: []}
        for name, parameter in self.named_parameters():
            is_last = name.startswith("branches.") and ".fc6." not in name and ".fc7." not in name
            groups[1.0 if not is_last else 20.0 if name.endswith(".bias") else 10.0].append(parameter)
        return [(parameters, multiple) for multiple, parameters in groups.items()]
