"""The tables of segmentation_models.pytorch: python tests/parity/make_smp.py FOLDER, which holds its package."""

from __future__ import annotations

import sys
from typing import Any

from seeded import write_table

SIZES = [(64, 96), (128, 64)]
# table -> (class there, encoder, its arguments, options of import_checkpoint, sizes)
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], list[tuple[int, int]]]] = {
    "v3_resnet18": ("DeepLabV3", "resnet18", {}, {}, SIZES),
    "v3_resnet34": ("DeepLabV3", "resnet34", {"encoder_output_stride": 16}, {"output_stride": 16}, SIZES),
    "v3_resnet50": ("DeepLabV3", "resnet50", {}, {}, SIZES),
    "v3_resnet101": (
        "DeepLabV3",
        "resnet101",
        {"encoder_output_stride": 16},
        {"output_stride": 16},
        SIZES[:1],
    ),
    "v3_mobilenet": ("DeepLabV3", "mobilenet_v2", {}, {}, [*SIZES, (256, 256)]),
    "v3_separable": (
        "DeepLabV3",
        "resnet18",
        {"decoder_aspp_separable": True, "decoder_channels": 128},
        {},
        SIZES,
    ),
    "v3_depth_4": ("DeepLabV3", "resnet18", {"encoder_depth": 4, "upsampling": 8}, {}, SIZES),
    "v3_tu_regnetx_002": ("DeepLabV3", "tu-regnetx_002", {}, {"encoder": "tu-regnetx_002"}, SIZES),
    "v3plus_resnet18": ("DeepLabV3Plus", "resnet18", {}, {}, [*SIZES, (512, 512)]),
    "v3plus_resnet34": (
        "DeepLabV3Plus",
        "resnet34",
        {"encoder_output_stride": 8},
        {"output_stride": 8},
        SIZES,
    ),
    "v3plus_resnet50": ("DeepLabV3Plus", "resnet50", {}, {}, SIZES),
    "v3plus_resnet101": ("DeepLabV3Plus", "resnet101", {}, {}, SIZES[:1]),
    "v3plus_mobilenet": ("DeepLabV3Plus", "mobilenet_v2", {}, {}, SIZES),
    "v3plus_mobilenet_8": (
        "DeepLabV3Plus",
        "mobilenet_v2",
        {"encoder_output_stride": 8},
        {"output_stride": 8},
        SIZES,
    ),
    "v3plus_whole_aspp": (
        "DeepLabV3Plus",
        "resnet18",
        {"decoder_aspp_separable": False, "decoder_atrous_rates": (6, 12, 18)},
        {"atrous_rates": (6, 12, 18)},
        SIZES,
    ),
    "v3plus_depth_3": (
        "DeepLabV3Plus",
        "mobilenet_v2",
        {"encoder_depth": 3, "encoder_output_stride": 8},
        {"output_stride": 8},
        SIZES,
    ),
    "v3plus_tu_resnet50": ("DeepLabV3Plus", "tu-resnet50", {}, {}, SIZES),
    "v3plus_tu_mobilenetv2_100": (
        "DeepLabV3Plus",
        "tu-mobilenetv2_100",
        {"encoder_output_stride": 8},
        {"output_stride": 8},
        SIZES,
    ),
    "psp_resnet18": ("PSPNet", "resnet18", {}, {}, SIZES),
    "psp_resnet50": ("PSPNet", "resnet50", {"encoder_depth": 5, "upsampling": 32}, {}, SIZES),
    "psp_mobilenet": ("PSPNet", "mobilenet_v2", {"encoder_depth": 4, "upsampling": 16}, {}, SIZES),
    "psp_xception": ("PSPNet", "xception", {}, {}, SIZES),
    "psp_xception_5": ("PSPNet", "xception", {"encoder_depth": 5, "upsampling": 32}, {}, SIZES),
    "psp_tu_convnext_atto": ("PSPNet", "tu-convnext_atto", {}, {"encoder": "tu-convnext_atto"}, SIZES),
}
CLASSES = 3


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import segmentation_models_pytorch as smp

    for name, (kind, encoder, arguments, _, sizes) in CASES.items():
        model = getattr(smp, kind)(encoder, encoder_weights=None, classes=CLASSES, **arguments)
        write_table(
            f"smp_{name}", model, sizes, step=16 if (512, 512) in sizes else 8, version=smp.__version__
        )


if __name__ == "__main__":
    main(sys.argv[1])
