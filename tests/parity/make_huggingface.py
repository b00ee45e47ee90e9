"""The tables of transformers: python tests/parity/make_huggingface.py FOLDER, the folder that holds its package."""

from __future__ import annotations

import sys
from typing import Any

import torch.nn.functional as F
from seeded import write_table
from torch import Tensor, nn

SIZES = [(65, 65), (64, 98), (97, 129)]
# table -> its configuration (what weights do not tell are the options of import_checkpoint too)
CASES: dict[str, dict[str, Any]] = {
    "os8": {"output_stride": 8},
    "os16": {"output_stride": 16},
    "os32": {"output_stride": 32},
    "os8_symmetric": {"output_stride": 8, "tf_padding": False},
    "os8_eps": {"output_stride": 8, "layer_norm_eps": 1e-5},
    "width_0.35": {"output_stride": 16, "depth_multiplier": 0.35},
    "width_0.5": {"output_stride": 16, "depth_multiplier": 0.5, "finegrained_output": False},
    "width_0.75": {"output_stride": 8, "depth_multiplier": 0.75},
    "width_1.4": {"output_stride": 8, "depth_multiplier": 1.4},
}
OPTIONS = ("output_stride", "tf_padding", "layer_norm_eps")


class Resized(nn.Module):
    """Its logits at the picture's size, as its image processor brings them there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.load_state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.model(x).logits, x.shape[-2:], mode="bilinear", align_corners=False)


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import transformers
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    for name, arguments in CASES.items():
        model = MobileNetV2ForSemanticSegmentation(MobileNetV2Config(num_labels=3, **arguments))
        sizes = [*SIZES, (257, 257)] if name == "os8" else SIZES
        write_table(f"huggingface_{name}", Resized(model), sizes, step=8, version=transformers.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
