"""DeepLab v3+: Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation.

Chen, Zhu, Papandreou, Schroff, Adam, ECCV 2018, https://arxiv.org/abs/1802.02611

    encoder (sec. 3.1): DeepLab v3                decoder (sec. 3.1, fig. 2)

    backbone --------------- ASPP 256 ------------- up x4 --+
       |      output stride 16 (or 8)                       +- concat - 3x3 256 - 3x3 256 - 1x1 C - up x4
       +--- low-level features, stride 4 --- 1x1 conv 48 ---+            each conv + BN + ReLU

The encoder is v3's, imported. The decoder brings back the object boundaries: the low-level features (the
end of conv2 in a ResNet) are cut to 48 channels so that they do not outweigh the 256 of the encoder
(sec. 4.1, tab. 1), and two 3x3 convolutions refine the sum of both (tab. 2). `separable=True` makes the
3x3 convolutions of ASPP and decoder atrous separable (sec. 3.1, fig. 3).

PASCAL VOC 2012 val mIoU and multiply-adds at 513x513: ResNet-101 78.85 with 101.28 B, at output stride 8
79.35 with 297.92 B (tab. 3); Xception-65 79.93 with 89.76 B, separable 79.79 with 54.17 B (tab. 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.backbones.base import Backbone
from atrous.config import ModelConfig
from atrous.layers import SCALES, AlignCorners, classifier, conv_bn_act, max_over_scales, resize
from atrous.models.deeplab_v3 import ASPP, Separable, aspp_rates, choose_conv, fcn_head

LOW_LEVEL_STRIDE = 4  # sec. 3.1
LOW_LEVEL_CHANNELS = 48  # sec. 4.1, tab. 1


class Decoder(nn.Module):
    """Encoder features (N, c, h, w) and low-level features (N, l, H/4, W/4) to (N, 256, H/4, W/4)."""

    def __init__(
        self,
        encoder_channels: int,
        low_level_channels: int,
        *,
        channels: int = 256,
        convs: int = 2,
        separable: Separable = False,
        align_corners: AlignCorners = False,
    ) -> None:
        super().__init__()
        conv3x3 = choose_conv(separable)
        self.reduce = conv_bn_act(low_level_channels, LOW_LEVEL_CHANNELS, 1)
        joined = encoder_channels + LOW_LEVEL_CHANNELS
        self.refine = nn.Sequential(*(conv3x3(channels if i else joined, channels, 3) for i in range(convs)))
        self.align_corners = align_corners

    def forward(self, encoded: Tensor, low_level_features: Tensor) -> Tensor:
        encoded = resize(encoded, low_level_features.shape[-2:], self.align_corners)
        refined: Tensor = self.refine(torch.cat([encoded, self.reduce(low_level_features)], dim=1))
        return refined


class DeepLabV3Plus(nn.Module):
    """DeepLab v3+ on any backbone that has features at stride 4.

    Args:
        backbone: a built backbone; its output stride is the encoder's.
        num_classes: C.
        atrous_rates: rates of the ASPP as they are. None: (6, 12, 18) at output stride 16, and in proportion.
            (): no atrous branches, for mobile backbones.
        separable: atrous separable 3x3 convolutions in ASPP and decoder; "plain": without batch norm between their
            halves (segmentation_models, VainF), "linear": without the ReLU between (PaddleSeg).
        aspp_separable: of the ASPP's branches alone. None: as `separable` (segmentation_models has both).
        channels: of ASPP and decoder; 512 in mmsegmentation.
        project_kernel: of the convolution behind the ASPP's branches; 3 in mmsegmentation.
        aspp_conv: one more 3x3 convolution behind the ASPP (segmentation_models).
        decoder_convs: 3x3 convolutions in the decoder; 1 in segmentation_models and VainF.
        aux: an auxiliary FCN head that is scored in training only (mmsegmentation).
        aux_stage: the backbone's stage under it; -2 is block 3 of a ResNet.
        aux_channels: of its 3x3 convolution. None: a quarter of the stage's.
        msc: v2's maximum over three scales of the picture, at the picture's size (kazuto1011).
        dropout: after the ASPP (authors' code: 0.1).
        align_corners: of every resize; True for weights from the authors' code, "asymmetric" for some of their TFLite
            files (see `layers.resize`).

    Raises InputError where the backbone has no features at stride 4.
    """

    config: ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        atrous_rates: Sequence[int] | None = None,
        separable: Separable = False,
        aspp_separable: Separable | None = None,
        channels: int = 256,
        project_kernel: int = 1,
        aspp_conv: bool = False,
        decoder_convs: int = 2,
        aux: bool = False,
        aux_stage: int = -2,
        aux_channels: int | None = None,
        msc: bool = False,
        dropout: float = 0.1,
        align_corners: AlignCorners = False,
    ) -> None:
        super().__init__()
        rates = aspp_rates(backbone.output_stride) if atrous_rates is None else atrous_rates
        self.low_level_stage = backbone.stage_at(LOW_LEVEL_STRIDE)
        self.backbone = backbone
        self.aspp = ASPP(
            backbone.channels[-1],
            rates,
            channels=channels,
            separable=separable if aspp_separable is None else aspp_separable,
            project_kernel=project_kernel,
            dropout=dropout,
        )
        self.aspp_conv = choose_conv(separable)(channels, channels, 3) if aspp_conv else nn.Identity()
        self.decoder = Decoder(
            self.aspp.out_channels,
            backbone.channels[self.low_level_stage],
            channels=channels,
            convs=decoder_convs,
            separable=separable,
            align_corners=align_corners,
        )
        self.classifier = classifier(channels, num_classes)
        self.aux = fcn_head(backbone.channels[aux_stage], num_classes, aux_channels) if aux else None
        self.aux_stage = aux_stage
        self.scales = SCALES if msc else (1.0,)
        self.align_corners = align_corners

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Logits on the decoder's grid: "out" (N, C, H/4, W/4), with `aux` in training also "aux".

        With `msc` at the picture's size, and in training also "scale_0.5", "scale_0.75" and "scale_1".
        """
        return max_over_scales(
            self._scores, x, self.scales, training=self.training, align_corners=self.align_corners
        )

    def _scores(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        encoded = self.aspp_conv(self.aspp(features[-1]))
        decoded = self.decoder(encoded, features[self.low_level_stage])
        out: Tensor = self.classifier(decoded)
        if len(self.scales) > 1:
            out = resize(out, x.shape[-2:], self.align_corners)
        scores = {"out": out}
        if self.training and self.aux is not None:
            scores["aux"] = self.aux(features[self.aux_stage])
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W), H and W from 1 up, to logits (N, C, H, W)."""
        return resize(self.scores(x)["out"], x.shape[-2:], self.align_corners)

    def learning_rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the multiple of the learning rate they train at: backbone 1, the new layers 10.

        As for v3: the paper trains all at one rate, the multiple is v1's and v2's (v2 sec. 4.1).
        """
        head = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [(list(self.backbone.parameters()), 1.0), (head, 10.0)]
