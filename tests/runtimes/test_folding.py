from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from atrous import create_model
from atrous.batch_norm import freeze
from atrous.fake_quantize import fake_quantize
from atrous.importers.vainf import XCEPTION
from atrous.runtimes import fold_batch_norm


def trained(model: nn.Module) -> nn.Module:
    """Statistics and scales as after a training: far from 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v3plus", {"backbone": "mobilenet_v2", "width": 0.35}),
        ("deeplab_v3plus", {"backbone": "mobilenet_v2", "width": 0.35, "low_level_features": "depthwise"}),
        ("deeplab_v3plus", {"backbone": "xception41", "separable": True}),
        ("deeplab_v3", {"backbone": "mobilenet_v3_large"}),
        ("deeplab_v3", {"backbone": "resnet18", "form": "cascade"}),
        ("deeplab_v3", {"backbone": "resnet18", "msc": True}),
        ("deeplab_v3", {"backbone": "legacy_xception"}),
        (
            "deeplab_v3plus",
            {"backbone": "legacy_xception", **XCEPTION, "output_stride": 8, "decoder_convs": 1},
        ),
        ("deeplab_v3plus", {"backbone": "mobilenet_edgetpu"}),
        ("deeplab_v3", {"backbone": "drn_d_22", "output_stride": 8}),
        ("pspnet", {"backbone": "resnet18", "deep_stem": True}),
    ],
)
def test_no_batch_norm_is_left_and_the_logits_are_the_same(name: str, options: dict[str, Any]) -> None:
    model = trained(create_model(name, num_classes=5, **options))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    left = [key for key, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d) and "aux" not in key]
    assert not left
    x = torch.randn(1, 3, 113, 106)
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert (found - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())
    for key, value in model.state_dict().items():  # the model itself is as it was
        assert torch.equal(value, before[key])


def test_frozen_batch_norm_folds_too() -> None:
    model = trained(create_model("deeplab_v3", backbone="resnet18", num_classes=3))
    freeze(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norm(model).modules())


class Awkward(nn.Module):
    """A batch norm behind a ReLU in place, one behind a sum, and two behind one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        over_relu = self.norms[0](self.relu(self.a(x)))
        over_sum = self.norms[1](self.b(x) + x)
        twice = self.c(x)
        return over_relu + over_sum + self.norms[2](twice) + self.norms[3](twice)


def test_what_cannot_be_folded_stays() -> None:
    model = trained(Awkward())
    folded = fold_batch_norm(model)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 4
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(folded(x), model(x))


def test_the_rounding_of_a_quantised_file_stays() -> None:
    """Behind a folded batch norm it acts as before; a convolution that is rounded itself keeps its batch norm."""
    model = trained(create_model("deeplab_v3plus", backbone="mobilenet_v2", width=0.35, num_classes=4))
    plain = model(torch.ones(1, 3, 65, 65))
    clamped = (1e-6, 0, -200000, 200000)  # a fine grid, so that float32's rounding moves no value by much
    grids = {"backbone.features.2.conv.1.1": [clamped], "backbone.features.3.conv.0.0": [clamped]}
    fake_quantize(model, grids)
    expected = model(torch.ones(1, 3, 65, 65))
    assert (expected - plain).abs().max() > 1e-3
    folded = fold_batch_norm(model)
    assert torch.allclose(folded(torch.ones(1, 3, 65, 65)), expected, atol=1e-4)
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == ["backbone.features.3.conv.0.1"]
