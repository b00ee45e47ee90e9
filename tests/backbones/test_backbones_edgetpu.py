"""MobileNetEdgeTPU beside timm's, and the options that Google's mobile DeepLabs need of MobileNetV2."""

import pytest
import torch
from torch import nn

from atrous.backbones import create_backbone
from atrous.errors import InputError


def in_order(network: nn.Module) -> list[nn.Module]:
    """Convolutions and batch norms in the order of their definition."""
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@torch.no_grad()
def test_features_are_timms(output_stride, blank, randomize, picture, assert_same):
    timm = pytest.importorskip("timm")
    theirs = randomize(
        blank(timm.create_model, "mobilenet_edgetpu_100", output_stride=output_stride, num_classes=0)
    )
    theirs.blocks[0][0].bn1.act = nn.Identity()  # slim's first block ends in a linear 1x1
    ours = blank(create_backbone, "mobilenet_edgetpu", output_stride=output_stride, eps=1e-5)
    pairs = list(zip(in_order(ours), in_order(theirs), strict=True))
    for own, their in pairs:
        own.load_state_dict(their.state_dict())
    maps = theirs.forward_intermediates(picture, intermediates_only=True)[:4]
    assert_same(ours(picture), [*maps, theirs.forward_features(picture)])


def test_the_first_block_is_linear(blank, randomize, picture):
    """What timm has there would show."""
    network = randomize(blank(create_backbone, "mobilenet_edgetpu"))
    assert network(picture)[0].min() < 0


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("mobilenet_edgetpu", {}, (16, 32, 48, 96, 1280)),
        ("mobilenet_edgetpu", {"width": 0.75}, (16, 24, 40, 72, 1280)),
        ("mobilenet_edgetpu", {"width": 0.5, "last_channels": 640}, (8, 16, 24, 48, 640)),
        ("mobilenet_v2", {"width": 0.5}, (8, 16, 16, 48, 160)),
        ("mobilenet_v2", {"width": 0.5, "divisible_by": 1}, (8, 12, 16, 48, 160)),
        ("mobilenet_v2", {"low_level_features": "depthwise"}, (16, 144, 32, 96, 320)),
    ],
)
@torch.no_grad()
def test_channels(name, options, channels):
    network = create_backbone(name, output_stride=16, **options).eval()
    assert network.channels == channels
    assert tuple(stage.shape[1] for stage in network(torch.randn(1, 3, 33, 33))) == channels


@torch.no_grad()
def test_wide_low_level_features_are_inside_their_block(blank, randomize, picture, assert_same):
    wide = randomize(blank(create_backbone, "mobilenet_v2", low_level_features="depthwise"))
    plain = blank(create_backbone, "mobilenet_v2")
    plain.load_state_dict(wide.state_dict())
    seen = []
    plain.features[3].conv[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    expected = plain(picture)
    assert_same(wide(picture), [expected[0], seen[0], *expected[2:]])


@torch.no_grad()
def test_paddings_agree_on_odd_sizes(blank, randomize):
    same = randomize(blank(create_backbone, "mobilenet_edgetpu", padding="same"))
    symmetric = blank(create_backbone, "mobilenet_edgetpu")
    symmetric.load_state_dict(same.state_dict())
    for size, equal in (((65, 97), True), ((64, 97), False)):
        x = torch.randn(1, 3, *size)
        assert torch.equal(same(x)[-1], symmetric(x)[-1]) is equal


def test_messages():
    with pytest.raises(InputError, match=r"output_stride=12 cannot be had here: choose one of \[2, 4, 8"):
        create_backbone("mobilenet_edgetpu", output_stride=12)
    with pytest.raises(InputError, match="padding"):
        create_backbone("mobilenet_edgetpu", padding="valid")
    with pytest.raises(InputError, match="low_level_features"):
        create_backbone("mobilenet_v2", low_level_features="wide")
