"""Write the tables of VainF/DeepLabV3Plus-Pytorch: python tests/parity/make_vainf.py FOLDER COMMIT

FOLDER holds that project's code. Run by hand; the tests read the tables.
"""

from __future__ import annotations

import sys
from typing import Any

from seeded import write_table
from torch import nn

# its name, output stride, --separable_conv
CASES = [
    *((f"{head}_{net}", stride, False) for head in ("deeplabv3", "deeplabv3plus")
      for net in ("mobilenet", "xception") for stride in (16, 8)),
    ("deeplabv3_resnet50", 16, False), ("deeplabv3_resnet50", 8, False), ("deeplabv3_resnet101", 16, False),
    ("deeplabv3plus_resnet50", 16, False), ("deeplabv3plus_resnet50", 8, False),
    ("deeplabv3plus_resnet101", 16, False), ("deeplabv3plus_mobilenet", 16, True),
    ("deeplabv3plus_resnet50", 16, True),
]  # fmt: skip


def sizes(name: str) -> list[tuple[int, int]]:
    """Its Xception loses the rim, so that it needs 103 pixels at output stride 8."""
    if name.endswith("xception"):
        return [(113, 129)]
    return [(65, 65), (97, 129)] if name.endswith("mobilenet") else [(65, 97)]


def table(name: str, output_stride: int, separable: bool) -> str:
    return f"vainf_{name}_os{output_stride}{'_separable' if separable else ''}"


def build(name: str, output_stride: int, separable: bool) -> nn.Module:
    """Its model, without the ImageNet weights it would download."""
    import network

    builder = getattr(network.modeling, name)
    model: Any = builder(num_classes=21, output_stride=output_stride, pretrained_backbone=False)
    if separable:
        network.convert_to_separable_conv(model.classifier)
    return model.eval()


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for case in CASES:
        write_table(table(*case), build(*case), sizes(case[0]), commit=sys.argv[2])
