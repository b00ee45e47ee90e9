"""Write the tables of mmsegmentation: python tests/parity/make_mmseg.py FOLDER VERSION [live]

FOLDER holds mmsegmentation, mmengine, mmcv-lite and what they import. Run by hand; the tests read the tables. "live"
compares at more sizes instead, and prints the largest differences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

from seeded import live, write_table
from torch import Tensor, nn

SIZES = [(65, 65), (97, 129)]
LIVE = [*SIZES, (64, 64), (129, 193), (513, 513)]
BN = {"type": "BN"}
D8: dict[str, Any] = {"dilations": (1, 1, 2, 4), "strides": (1, 2, 1, 1)}
D16_MG124: dict[str, Any] = {"dilations": (1, 1, 1, 2), "strides": (1, 2, 2, 1), "multi_grid": (1, 2, 4)}


class Network(nn.Module):
    """Backbone and heads as its EncoderDecoder has them: the logits at the picture's size."""

    def __init__(self, backbone: nn.Module, head: nn.Module, aux: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.decode_head = backbone, head
        if aux is not None:
            self.auxiliary_head = aux

    def forward(self, x: Tensor) -> Tensor:
        from mmseg.models.utils import resize

        logits = self.decode_head(self.backbone(x))
        return resize(logits, x.shape[-2:], mode="bilinear", align_corners=self.decode_head.align_corners)


def build(
    model: str,
    backbone: str,
    align_corners: bool = False,
    mg124: bool = False,
    stride: int = 8,
    channels: int = 512,
) -> Network:
    from mmseg.models.backbones import MobileNetV2, ResNet, ResNetV1c
    from mmseg.models.decode_heads import ASPPHead, DepthwiseSeparableASPPHead, FCNHead, PSPHead

    if backbone == "m-v2":
        network = MobileNetV2(1.0, (1, 2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4, 4), (1, 2, 4, 6), norm_cfg=BN)
        deep, low, block3, aux_channels = 320, 24, 96, 256
    else:
        kind = ResNet if backbone.endswith("b") else ResNetV1c
        grid = D16_MG124 if mg124 else D8 if stride == 8 else {}
        depth = int(backbone.strip("rb"))
        network = kind(depth=depth, norm_cfg=BN, style="pytorch", contract_dilation=True, **grid)
        deep, low, block3, aux_channels = 2048, 256, 1024, 256
    common: dict[str, Any] = {"num_classes": 7, "norm_cfg": BN, "align_corners": align_corners}
    head: dict[str, Any] = common | {
        "in_channels": deep,
        "in_index": 3,
        "channels": channels,
        "dropout_ratio": 0.1,
    }
    rates = (1, 6, 12, 18) if mg124 else (1, 12, 24, 36)
    if model == "pspnet":
        made = PSPHead(pool_scales=(1, 2, 3, 6), **head)
    elif model == "deeplabv3":
        made = ASPPHead(dilations=rates, **head)
    else:
        made = DepthwiseSeparableASPPHead(dilations=rates, c1_in_channels=low, c1_channels=48, **head)
    aux = FCNHead(
        in_channels=block3, in_index=2, channels=aux_channels, num_convs=1, concat_input=False, **common
    )
    return Network(network, made, aux)


def models(quick: bool) -> Iterator[tuple[str, Network, dict[str, Any]]]:
    """(name, model, options of the import). quick: fewer channels in the heads, and ResNet-101 once alone."""
    few = 64 if quick else 512
    for model in ("deeplabv3", "deeplabv3plus", "pspnet"):
        yield f"{model}_r50-d8", build(model, "r50"), {}
        for backbone in ("r50b", "m-v2"):
            yield f"{model}_{backbone}-d8", build(model, backbone, channels=few), {}
        if model == "deeplabv3plus" or not quick:
            yield f"{model}_r101-d8", build(model, "r101", channels=few), {}
        corners = build(model, "r50", align_corners=True, channels=few)
        yield f"{model}_r50-d8_769x769", corners, {"align_corners": True}
    for model in ("deeplabv3", "deeplabv3plus"):
        for backbone in ("r50",) if quick else ("r50", "r101"):
            network = build(model, backbone, mg124=True, channels=few)
            yield f"{model}_{backbone}-d16-mg124", network, {"output_stride": 16}
    yield "pspnet_r50-d32", build("pspnet", "r50", stride=32, channels=few), {"output_stride": 32}


def with_settings() -> Iterator[tuple[str, Network, str]]:
    """(name, model, the text of its settings), each unlike what a file without settings is built as."""
    from mmengine import Config
    from mmseg.models.backbones import MobileNetV2, ResNet, ResNetV1c
    from mmseg.models.decode_heads import ASPPHead, DepthwiseSeparableASPPHead, PSPHead

    kinds = {
        k.__name__: k for k in (MobileNetV2, ResNet, ResNetV1c, ASPPHead, DepthwiseSeparableASPPHead, PSPHead)
    }
    eps = {"type": "BN", "eps": 1e-3}
    head: dict[str, Any] = {
        "in_channels": 2048,
        "in_index": 3,
        "channels": 16,
        "num_classes": 7,
        "norm_cfg": BN,
    }
    d16 = {"dilations": (1, 1, 1, 2), "strides": (1, 2, 2, 1)}
    v1c: dict[str, Any] = {"type": "ResNetV1c", "depth": 50, "norm_cfg": BN}
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "rates_eps": (
            v1c | d16 | {"norm_cfg": eps},
            head | {"type": "ASPPHead", "dilations": (1, 4, 8), "norm_cfg": eps | {"eps": 0.01}},
        ),
        "caffe_bins": (
            v1c | D8 | {"type": "ResNet", "style": "caffe"},
            head | {"type": "PSPHead", "pool_scales": (1, 2, 4)},
        ),
        "d16_no_grid": (
            v1c | d16 | {"contract_dilation": True},
            head | {"type": "DepthwiseSeparableASPPHead", "c1_in_channels": 256, "c1_channels": 48},
        ),
        "grid_at_8": (
            v1c | D8 | {"contract_dilation": True, "multi_grid": (4, 8, 16)},
            head | {"type": "ASPPHead", "dilations": (1, 6, 12, 18), "align_corners": True},
        ),
        "mobilenet_16": (
            {
                "type": "MobileNetV2",
                "strides": (1, 2, 2, 2, 1, 1, 1),
                "dilations": (1, 1, 1, 1, 1, 2, 2),
                "norm_cfg": eps,
            },
            head | {"type": "ASPPHead", "in_channels": 320},
        ),
    }
    for name, (backbone, top) in settings.items():
        parts = [
            kinds[said["type"]](**{k: v for k, v in said.items() if k != "type"}) for said in (backbone, top)
        ]
        aux = {
            "type": "FCNHead",
            "align_corners": True,
            "norm_cfg": BN,
        }  # in the text alone: nothing follows it
        model = {"type": "EncoderDecoder", "backbone": backbone, "decode_head": top, "auxiliary_head": aux}
        text = Config({"norm_cfg": BN, "model": model}).pretty_text
        yield name, Network(parts[0], parts[1], None), text


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    sys.modules["mmcv.ops"] = MagicMock()  # compiled, and not needed here
    compare = sys.argv[3:] == ["live"]
    for name, model, options in models(quick=not compare):
        if compare:
            live(name, model, LIVE, **options)
        else:
            write_table(f"mmseg_{name}", model, SIZES[:1] if "r101" in name else SIZES, version=sys.argv[2])
    for name, model, text in () if compare else with_settings():
        write_table(f"mmseg_settings_{name}", model, SIZES[:1], version=sys.argv[2], settings=text)
