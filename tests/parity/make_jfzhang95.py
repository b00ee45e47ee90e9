"""Write the tables of jfzhang95/pytorch-deeplab-xception: python tests/parity/make_jfzhang95.py FOLDER COMMIT

FOLDER holds that project's code. Run by hand; the tests read the tables.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from seeded import write_table
from torch import nn
from torch.utils import model_zoo

CASES = [("resnet", 16), ("resnet", 8), ("xception", 16), ("xception", 8), ("mobilenet", 16), ("mobilenet", 8),
         ("drn", 8)]  # fmt: skip
SIZES = [(65, 65), (97, 129)]
BLOCKS = (1, 1, 3, 4, 6, 3, 1, 1)  # of its DRN, and its channels
CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)


def build(backbone: str, output_stride: int) -> nn.Module:
    """Its DeepLab, without the ImageNet weights it would download."""
    model_zoo.load_url = lambda *_, **__: {}  # type: ignore[attr-defined]
    from modeling.backbone import drn
    from modeling.deeplab import DeepLab

    drn.drn_d_54 = partial(drn.DRN, drn.Bottleneck, BLOCKS, "D", CHANNELS)
    model: Any = DeepLab(backbone, output_stride, num_classes=21)
    if backbone == "mobilenet":  # the same weights under two names: keep one, or they would be drawn twice
        for name in ("low_level_features", "high_level_features"):
            part = getattr(model.backbone, name)
            delattr(model.backbone, name)
            object.__setattr__(model.backbone, name, part)
    return model.eval()


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for backbone, output_stride in CASES:
        sizes = SIZES[:1] if backbone == "xception" else SIZES
        write_table(
            f"jfzhang95_{backbone}_os{output_stride}",
            build(backbone, output_stride),
            sizes,
            commit=sys.argv[2],
        )
