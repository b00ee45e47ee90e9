"""encoder_depth: a backbone that stops early has the first maps of the whole one, and all of its weights."""

from __future__ import annotations

import pytest
import torch

from atrous.backbones import create_backbone
from atrous.errors import InputError
from atrous.models import create_model

NAMES = ["resnet18", "resnet50", "mobilenet_v2", "legacy_xception"]


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("name", [*NAMES, "timm:resnet18", "timm:convnext_atto"])
def test_the_first_maps_are_the_same(name: str, depth: int) -> None:
    stride = 2**depth
    whole = create_backbone(name, output_stride=stride).eval()
    part = create_backbone(name, output_stride=stride, encoder_depth=depth).eval()
    own = part.state_dict()
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in own})
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        maps, all_maps = part(x), whole(x)
    assert part.output_stride == stride
    assert len(maps) == len(part.channels) == len(part.strides) < len(all_maps)
    for ours, theirs in zip(maps, all_maps, strict=False):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_run_is_not_trained(name: str) -> None:
    model = create_model("pspnet", name, 3, 8, encoder_depth=3, aux=False)
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    assert any(not parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == create_model("pspnet", name, 3, 8, aux=False).state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 6, 0, -1])
def test_other_depths_are_refused(name: str, depth: int) -> None:
    with pytest.raises(InputError, match="encoder_depth"):
        create_backbone(name, encoder_depth=depth)
