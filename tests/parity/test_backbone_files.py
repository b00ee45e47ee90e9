"""Files that hold a backbone alone: fyu/drn's and Cadene's features, kept by make_backbones.py, and timm's, live."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from seeded import difference, draw_into, draw_picture, read_table
from torch import nn

from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.drn import CITYSCAPES
from atrous.importers.xception import NORMALIZATION

FYU, CADENE = "fyu/drn d75db2ee", "Cadene/pretrained-models.pytorch 8aae3d8f"


def features(name: str, **options: Any) -> tuple[Any, Any, list[tuple[torch.Tensor, torch.Tensor]]]:
    """(model, weights, [(our last features at every step-th point, what the table has)])."""
    weights, pairs, step = read_table(name)
    model: Any = import_checkpoint(weights, allow_missing="head", **options)
    with torch.inference_mode():
        return model, weights, [(model.backbone(x)[-1][..., ::step, ::step], theirs) for x, theirs in pairs]


@pytest.mark.parametrize("name", ["drn_c_26", "drn_d_22", "drn_d_54"])
def test_features_of_a_drn_are_its_authors(name: str, prove: Any) -> None:
    model, _, found = features(f"drn_{name}")
    assert (model.report.source, model.config.backbone, model.config.output_stride) == ("drn", name, 8)
    assert model.report.left_out == ["fc.weight", "fc.bias"]
    assert model.report.unused == []
    assert model.metadata.normalization == Normalization()
    prove("drn", f"{name}, ImageNet", max(difference(*pair) for pair in found), FYU)


@pytest.mark.parametrize("name", ["drn_c_26", "drn_d_22"])
def test_the_backbone_of_a_drnseg_is_its_authors(name: str, prove: Any) -> None:
    model, weights, found = features(f"drn_seg_{name}")
    assert (model.report.source, model.config.backbone) == ("drn", name)
    assert model.report.left_out == ["seg.weight", "seg.bias", "up.weight"]
    assert model.report.unused == []
    assert model.metadata.normalization == CITYSCAPES
    scores = [(F.conv2d(ours, weights["seg.weight"], weights["seg.bias"]), theirs) for ours, theirs in found]
    prove("drn", f"{name}, DRNSeg's backbone", max(difference(*pair) for pair in scores), FYU)


def test_a_wrong_rate_in_a_drn_would_show() -> None:
    model, _, found = features("drn_drn_d_22")
    for module in model.backbone.layer6.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (2, 2)
    picture = draw_picture(49, 65)
    with torch.inference_mode():
        assert difference(model.backbone(picture)[-1][..., ::4, ::4], found[0][1]) > 0.01


def test_a_drn_that_is_not_here() -> None:
    weights, _, _ = read_table("drn_drn_d_22")
    for kind in ("3.weight", "4.weight", "4.bias", "4.running_mean", "4.running_var"):  # a second convolution
        weights[f"layer7.{kind}"] = weights[f"layer7.{kind.replace('3', '0').replace('4', '1')}"]
    with pytest.raises(
        InputError, match=r"DRN-D with \(1, 1, 2, 2, 2, 2, 2, 1\) blocks is not among drn_c_26"
    ):
        import_checkpoint(weights, allow_missing="head")


def test_features_of_cadenes_xception(prove: Any) -> None:
    model, _, found = features("xception_cadene", output_stride=32)
    assert (model.report.source, model.config.backbone) == ("xception", "legacy_xception")
    assert model.report.left_out == ["last_linear.weight", "last_linear.bias"]
    assert model.metadata.normalization == NORMALIZATION
    prove("xception", "Xception, output stride 32", max(difference(*pair) for pair in found), CADENE)


def test_features_of_timms_legacy_xception(prove: Any) -> None:
    classifier = draw_into(timm.create_model("legacy_xception"))
    weights = classifier.state_dict()
    theirs = timm.create_model("legacy_xception", features_only=True).eval()
    theirs.load_state_dict({f"body.{k}": v for k, v in weights.items() if not k.startswith("fc.")})
    old = {k: v[..., 0, 0] if k.endswith("pointwise.weight") else v for k, v in weights.items()}
    picture = draw_picture(97, 129)
    for given in (weights, old):
        ours: Any = import_checkpoint(given, allow_missing="head", model="deeplab_v3", output_stride=32)
        with torch.inference_mode():
            pairs = list(zip(ours.backbone(picture), theirs(picture), strict=True))
        prove("xception", "legacy_xception, all five maps", max(difference(*pair) for pair in pairs), "timm")
    linear = import_checkpoint(
        weights, allow_missing="head", output_stride=32, model_options={"relu_features": False}
    )
    with torch.inference_mode():
        assert difference(linear.backbone(picture)[1], pairs[1][1]) > 0.01


def test_without_leave_the_missing_head_is_an_error() -> None:
    weights, _, _ = read_table("drn_drn_d_22")
    with pytest.raises(InputError, match="--allow-missing head gives the head new weights"):
        import_checkpoint(weights)
