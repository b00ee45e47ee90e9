"""The same weights in torchvision's DeepLab v3 and in ours give the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.models.segmentation as torchvision_models
from seeded import difference, draw_into, draw_picture
from torch import nn

from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.models import create_model

# what torchvision's DeepLab v3 is, in our options
TORCHVISION: dict[str, Any] = {"extra_conv": True, "aux": True, "dropout": 0.5, "atrous_rates": (12, 24, 36)}
RESNET: dict[str, Any] = {"output_stride": 8, "multi_grid": (1,), "dilate_from": "second"}
MODELS: dict[str, dict[str, Any]] = {
    "resnet50": RESNET,
    "resnet101": RESNET,
    "mobilenet_v3_large": {"output_stride": 16, "aux_stage": 2, "stage_features": "first"},
}
SIZES = [(65, 65), (129, 193), (513, 513)]
CASES = [
    pytest.param(backbone, size, marks=[pytest.mark.slow] if (backbone, size) == ("resnet101", (513, 513)) else [])
    for backbone in MODELS
    for size in SIZES
]  # fmt: skip


def pair(backbone: str) -> tuple[Any, Any]:
    build = getattr(torchvision_models, f"deeplabv3_{backbone}")
    theirs = draw_into(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    return theirs, import_checkpoint(theirs.state_dict())


@pytest.mark.parametrize(("backbone", "size"), CASES)
def test_logits_are_torchvisions(backbone: str, size: tuple[int, int], prove: Any) -> None:
    theirs, ours = pair(backbone)
    picture = draw_picture(*size)
    with torch.inference_mode():
        found = difference(ours(picture), theirs(picture)["out"])
    prove("torchvision", f"deeplabv3_{backbone} at {size[0]}x{size[1]}", found, "its own model")


def test_a_wrong_rate_would_show() -> None:
    """The first unit of a stage with the new rate in place of the old one."""
    theirs, _ = pair("resnet50")
    other = create_model("deeplab_v3", "resnet50", **TORCHVISION, **RESNET | {"dilate_from": "first"}).eval()
    other.load_state_dict(pair("resnet50")[1].state_dict())
    picture = draw_picture(65, 65)
    with torch.inference_mode():
        assert difference(other(picture), theirs(picture)["out"]) > 0.1


def test_a_head_of_other_rates() -> None:
    """DeepLabHead is public there, and its rates leave no trace in the weights: the report says which were taken."""
    theirs, before = pair("mobilenet_v3_large")
    theirs.classifier = draw_into(torchvision_models.deeplabv3.DeepLabHead(960, 21, atrous_rates=(6, 12, 18)))
    ours = import_checkpoint(theirs.state_dict(), atrous_rates=[6, 12, 18])
    picture = draw_picture(129, 193)
    with torch.inference_mode():
        assert difference(ours(picture), theirs(picture)["out"]) <= 1e-4
        assert difference(import_checkpoint(theirs.state_dict())(picture), theirs(picture)["out"]) > 0.01
    assert before.report.notes == [
        "output_stride 16, atrous_rates 12 24 36: the project's own, the file does not say"
    ]
    assert ours.report.notes == ["output_stride 16: the project's own, the file does not say"]
    for wrong in ([6, 12], [6, 12, 0], "6 12 18", [6, 12, 18.0]):
        with pytest.raises(InputError, match="wanted 3 whole numbers from 1 up"):
            import_checkpoint(theirs.state_dict(), atrous_rates=wrong)


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3_large"])
def test_the_auxiliary_head_is_torchvisions(backbone: str) -> None:
    """In training mode, with dropout off: batch statistics; the head on block 3, or the first block at stride 8."""
    theirs, ours = pair(backbone)
    for model in (theirs, ours):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    picture = draw_picture(65, 65).repeat(2, 1, 1, 1) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    with torch.no_grad():
        expected, scores = theirs(picture), ours.scores(picture)
    aux = nn.functional.interpolate(scores["aux"], (65, 65), mode="bilinear")
    assert difference(aux, expected["aux"]) <= 1e-4
    out = nn.functional.interpolate(scores["out"], (65, 65), mode="bilinear")
    torch.testing.assert_close(out, expected["out"], atol=1e-3, rtol=1e-4)
