"""The original Xception, an ImageNet classifier: Cadene's pretrained-models.pytorch, timm's legacy_xception.

Another network than the aligned Xceptions 41, 65 and 71 of DeepLab v3+ (timm.py takes those); a backbone too.
"""

from __future__ import annotations

from typing import Any

from atrous.config import Normalization
from atrous.importers.convert import Converted, Source, backbone_only
from atrous.importers.files import Content
from atrous.importers.names import Table

TABLE: Table = {"": "", "fc": None, "last_linear": None}  # the classifier, under both its names
NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def recognise(content: Content) -> bool:
    wanted = {
        "conv1.weight",
        "block12.rep.1.conv1.weight",
        "block12.rep.1.pointwise.weight",
        "conv4.conv1.weight",
    }
    return wanted <= content.tensors.keys() and "block20.skip.weight" not in content.tensors


def convert(
    content: Content,
    model: str = "deeplab_v3plus",
    output_stride: int | None = None,
    model_options: dict[str, Any] | None = None,
) -> Converted:
    """model: what to build on it. output_stride: None is that of its paper. model_options: more of `create_model`'s."""
    options = {"pad_stem": False} | (model_options or {})
    converted = backbone_only(
        content, model, "legacy_xception", TABLE, output_stride, NORMALIZATION, **options
    )
    weights = converted.renamed.weights
    for name, tensor in weights.items():  # old files have them as matrices
        if name.endswith("pointwise.weight") and tensor.ndim == 2:
            weights[name] = tensor[..., None, None]
    return converted


SOURCE = Source(
    "the original Xception of Cadene and timm (backbone only)", recognise, convert, backbones=True
)
