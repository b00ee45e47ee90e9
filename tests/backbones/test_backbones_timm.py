"""The same weights in timm's networks and in ours give the same features; and timm's networks as backbones."""

import subprocess
import sys

import pytest
import torch

from atrous.backbones import create_backbone, load_pretrained
from atrous.errors import InputError

timm = pytest.importorskip("timm")


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@torch.no_grad()
def test_resnets(name, output_stride, blank, randomize, picture, assert_same):
    theirs = randomize(blank(timm.create_model, name, features_only=True, output_stride=output_stride))
    ours = blank(create_backbone, name, output_stride=output_stride)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(ours(picture), theirs(picture))


@torch.no_grad()
def test_deep_stem(blank, randomize, picture, assert_same):
    theirs = randomize(blank(timm.create_model, "resnet50s", features_only=True, output_stride=8))
    ours = blank(create_backbone, "resnet50", output_stride=8, deep_stem=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(ours(picture), theirs(picture))


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@torch.no_grad()
def test_mobilenet_v2(output_stride, blank, randomize, picture, assert_same, tmp_path):
    theirs = randomize(blank(timm.create_model, "mobilenetv2_100", output_stride=output_stride))
    torch.save(theirs.state_dict(), tmp_path / "mobilenetv2_100.pth")
    ours = blank(create_backbone, "mobilenet_v2", output_stride=output_stride)
    load_pretrained(ours, tmp_path / "mobilenetv2_100.pth")  # timm's names become torchvision's here
    features = blank(timm.create_model, "mobilenetv2_100", features_only=True, output_stride=output_stride)
    features.load_state_dict(theirs.state_dict(), strict=False)
    assert_same(ours(picture), features(picture))


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("xception65", 32), ("xception65", 16), ("xception65", 8), ("xception41", 16), ("xception71", 16)],
)
@torch.no_grad()
def test_xceptions(name, output_stride, blank, randomize, picture, assert_same):
    theirs = randomize(blank(timm.create_model, name, output_stride=output_stride, num_classes=0))
    ours = blank(create_backbone, name, output_stride=output_stride)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    maps = ours(picture)
    assert_same(maps, theirs.forward_intermediates(picture, intermediates_only=True))

    linear = blank(create_backbone, name, output_stride=output_stride, relu_features=False)
    linear.load_state_dict(theirs.state_dict(), strict=True)
    for before, after in zip(linear(picture)[:-1], maps[:-1], strict=True):
        assert before.min() < 0
        assert torch.equal(before.relu(), after)


@torch.no_grad()
def test_xception71_has_the_weights_of_the_plain_network_at_output_stride_8(blank, randomize):
    """The 728 -> 728 block that loses its stride keeps its 1x1 shortcut (timm drops it there)."""
    plain = randomize(blank(timm.create_model, "xception71", num_classes=0))
    blank(create_backbone, "xception71", output_stride=8).load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize("output_stride", [16, 8])
@torch.no_grad()
def test_timm_backbone_is_the_network_of_timm(output_stride, blank, randomize, assert_same):
    x = torch.randn(2, 5, 65, 97, generator=torch.Generator().manual_seed(1))
    ours = randomize(create_backbone("timm:regnetx_002", output_stride=output_stride, in_channels=5))
    theirs = timm.create_model("regnetx_002", features_only=True, output_stride=output_stride, in_chans=5)
    theirs.load_state_dict(ours.network.state_dict())
    assert ours.strides == (2, 4, 8, output_stride, output_stride)
    assert ours.channels == tuple(f.shape[1] for f in ours(x))
    assert_same(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 47), (64, 96)])
@torch.no_grad()
def test_timm_backbone_that_cuts_patches_loses_no_rim(size, assert_same):
    """ConvNeXt's 4x4 convolution with stride 4 would drop the last rows: they are padded instead."""
    ours = create_backbone("timm:convnext_atto", output_stride=16).eval()
    x = torch.randn(1, 3, *size)
    padded = torch.zeros(1, 3, -(-size[0] // 16) * 16, -(-size[1] // 16) * 16)
    padded[..., : size[0], : size[1]] = x
    for ours_, theirs, stride in zip(ours(x), ours.network(padded), ours.strides, strict=True):
        height, width = -(-size[0] // stride), -(-size[1] // stride)
        assert torch.equal(ours_, theirs[..., :height, :width])
        assert ours_.shape[-2:] == (height, width)


@torch.no_grad()
def test_timm_weights_from_a_file(tmp_path, blank, randomize, picture, assert_same):
    network = randomize(blank(timm.create_model, "resnet18"))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    ours = create_backbone("timm:resnet18", pretrained=tmp_path / "weights.pth").eval()
    theirs = create_backbone("resnet18", pretrained=tmp_path / "weights.pth").eval()
    assert_same(ours(picture), theirs(picture))

    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"weights of timm:resnet18 .*other.pth.* cannot be loaded"):
        create_backbone("timm:resnet18", pretrained=tmp_path / "other.pth")


def test_timm_messages(monkeypatch):
    with pytest.raises(InputError, match="timm has no model 'resnet5O': did you mean resnet50"):
        create_backbone("timm:resnet5O")
    for name in ("vit_tiny_patch16_224", "ghostnet_050", "hrnet_w18_small", "densenet121"):
        with pytest.raises(InputError, match=f"timm:{name} cannot give features at output stride 16"):
            create_backbone(f"timm:{name}")
    with pytest.raises(InputError, match=r"there is no file nowhere\.pth"):
        create_backbone("timm:resnet18", pretrained="nowhere.pth")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'atrous\[timm\]'"):
        create_backbone("timm:resnet50")


def test_importing_the_backbones_leaves_timm_alone():
    code = "import sys, atrous.backbones; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
