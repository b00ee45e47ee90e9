"""The same weights in torchvision's DeepLab v3 and in ours give the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.models.segmentation as torchvision_models
from torch import Tensor, nn

from atrous.models import create_model

# what torchvision's DeepLab v3 is, in our options
TORCHVISION: dict[str, Any] = {"extra_conv": True, "aux": True, "dropout": 0.5, "atrous_rates": (12, 24, 36)}
RESNET: dict[str, Any] = {"output_stride": 8, "multi_grid": (1,), "dilate_from": "second"}
MODELS: dict[str, dict[str, Any]] = {
    "resnet50": RESNET,
    "resnet101": RESNET,
    "mobilenet_v3_large": {"output_stride": 16, "aux_stage": 2},
}
SIZES = [(65, 65), (129, 193), (513, 513)]
CASES = [
    pytest.param(backbone, size, marks=[pytest.mark.slow] if (backbone, size) == ("resnet101", (513, 513)) else [])
    for backbone in MODELS
    for size in SIZES
]  # fmt: skip


def randomise(model: nn.Module) -> None:
    """Batch norms with statistics and scales of their own; the scales let 33 blocks neither fade nor explode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)


def our_name(key: str, backbone: str) -> str:
    if key.startswith("backbone.") and backbone.startswith("mobilenet"):
        return key.replace("backbone.", "backbone.features.", 1)
    for theirs, ours in (
        ("aux_classifier.", "aux."),
        ("classifier.0.convs.4.1.", "context.branches.4.conv.0."),
        ("classifier.0.convs.4.2.", "context.branches.4.conv.1."),
        ("classifier.0.convs.", "context.branches."),
        ("classifier.0.project.", "context.project."),
        ("classifier.1.", "extra_conv.0."),
        ("classifier.2.", "extra_conv.1."),
        ("classifier.4.", "classifier."),
    ):
        if key.startswith(theirs):
            return key.replace(theirs, ours, 1)
    return key


def pair(backbone: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    build = getattr(torchvision_models, f"deeplabv3_{backbone}")
    theirs = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    randomise(theirs)
    with torch.inference_mode():
        logits = theirs.eval()(torch.randn(1, 3, 65, 65))["out"]
    theirs.classifier[4].weight.data /= logits.std(dim=(2, 3)).mean()  # logits vary by 1 over the picture
    ours = create_model("deeplab_v3", backbone, **TORCHVISION, **MODELS[backbone])
    ours.load_state_dict({our_name(key, backbone): value for key, value in theirs.state_dict().items()})
    return theirs, ours


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert 0.1 < a.std(dim=(2, 3)).mean() < 10, "logits so flat or so large say nothing about 1e-4"
    return float((a - b).abs().max())


@pytest.mark.parametrize(("backbone", "size"), CASES)
def test_logits_are_torchvisions(backbone: str, size: tuple[int, int]) -> None:
    theirs, ours = pair(backbone)
    picture = torch.randn(1, 3, *size)
    with torch.inference_mode():
        assert difference(theirs.eval()(picture)["out"], ours.eval()(picture)) <= 1e-4


def test_a_wrong_rate_would_show() -> None:
    """The first unit of a stage with the new rate in place of the old one."""
    theirs, _ = pair("resnet50")
    other = create_model("deeplab_v3", "resnet50", **TORCHVISION, **RESNET | {"dilate_from": "first"}).eval()
    other.load_state_dict({our_name(key, "resnet50"): value for key, value in theirs.state_dict().items()})
    picture = torch.randn(1, 3, 65, 65)
    with torch.inference_mode():
        assert difference(theirs.eval()(picture)["out"], other(picture)) > 0.1


def test_the_auxiliary_head_is_torchvisions() -> None:
    """In training mode, with dropout off: batch statistics, and the head on block 3."""
    theirs, ours = pair("resnet50")
    for model in (theirs, ours):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    picture = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        expected, scores = theirs(picture), ours.scores(picture)
    aux = nn.functional.interpolate(scores["aux"], (65, 65), mode="bilinear")
    assert difference(expected["aux"], aux) <= 1e-4
    out = nn.functional.interpolate(scores["out"], (65, 65), mode="bilinear")
    torch.testing.assert_close(out, expected["out"], atol=1e-3, rtol=1e-4)
