"""The same weights in torchvision's networks and in ours give the same features, without renaming a key."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import mobilenetv2, vgg
from torchvision.models._utils import IntermediateLayerGetter

from atrous.backbones import create_backbone

DILATION = {32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}
STAGES = {"relu": "0", "layer1": "1", "layer2": "2", "layer3": "3", "layer4": "4"}


def load(backbone, network, left_out=()):
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith(tuple(left_out))}
    backbone.load_state_dict(weights, strict=True)
    return backbone.eval()


def features_at(network, indices, x):
    maps = []
    for i, layer in enumerate(network):
        x = layer(x)
        if i in indices:
            maps.append(x)
    return maps


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
@torch.no_grad()
def test_bottleneck_resnets(name, output_stride, blank, randomize, picture, assert_same):
    theirs = blank(torchvision.models.get_model, name, replace_stride_with_dilation=DILATION[output_stride])
    randomize(theirs)
    ours = load(blank(create_backbone, name, output_stride=output_stride), theirs, ["fc."])
    assert_same(ours(picture), list(IntermediateLayerGetter(theirs, STAGES)(picture).values()))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet152"])
@torch.no_grad()
def test_other_resnets(name, blank, randomize, picture, assert_same):
    theirs = randomize(blank(torchvision.models.get_model, name))
    ours = load(blank(create_backbone, name, output_stride=32), theirs, ["fc."])
    assert_same(ours(picture), list(IntermediateLayerGetter(theirs, STAGES)(picture).values()))


@pytest.mark.parametrize("width", [0.5, 1.0, 1.4])
@torch.no_grad()
def test_mobilenet_v2(width, blank, randomize, picture, assert_same):
    theirs = randomize(blank(torchvision.models.mobilenet_v2, width_mult=width))
    ours = load(
        blank(create_backbone, "mobilenet_v2", output_stride=32, width=width),
        theirs,
        ["classifier.", "features.18."],
    )
    assert_same(ours(picture), features_at(theirs.features, (1, 3, 6, 13, 17), picture))


@pytest.mark.parametrize("output_stride", [32, 16])
@torch.no_grad()
def test_mobilenet_v3_as_in_the_segmentation_networks(output_stride, blank, randomize, picture, assert_same):
    theirs = randomize(blank(torchvision.models.mobilenet_v3_large, dilated=output_stride == 16))
    ours = load(
        blank(create_backbone, "mobilenet_v3_large", output_stride=output_stride), theirs, ["classifier."]
    )
    assert_same(ours(picture), features_at(theirs.features, (1, 3, 6, 12, 16), picture))


@torch.no_grad()
def test_mobilenet_v2_with_padded_inputs(blank, randomize, picture, assert_same):
    """The option of the projects that pad a block's input and leave the depthwise convolution unpadded."""
    ours = randomize(blank(create_backbone, "mobilenet_v2", output_stride=32, pad_input=True))
    theirs = load(torchvision.models.mobilenet_v2().features[:18], ours.features)
    maps, x = [], picture
    for i, block in enumerate(theirs):
        if isinstance(block, mobilenetv2.InvertedResidual):
            depthwise = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)
            depthwise.padding = (0, 0)
            y = block.conv(F.pad(x, (1, 1, 1, 1)))
            x = x + y if block.use_res_connect else y
        else:
            x = block(x)
        if i in (1, 3, 6, 13, 17):
            maps.append(x)
    assert_same(ours(picture), maps)


@torch.no_grad()
def test_vgg16_large_fov(blank, randomize, picture, assert_same):
    """torchvision's layers, with the pools and rates of DeepLab v1 (sec. 3.1) put in."""
    features = vgg.make_layers(vgg.cfgs["D"])
    randomize(features)
    ours = blank(create_backbone, "vgg16", output_stride=8)
    ours.features.load_state_dict(features.state_dict(), strict=True)

    pools = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    for i, stride in zip(pools, (2, 2, 2, 1, 1), strict=True):
        features[i] = nn.MaxPool2d(3, stride, padding=1)
    for i in (24, 26, 28):  # conv5_1 .. conv5_3
        features[i].dilation = features[i].padding = (2, 2)
    theirs = features_at(features, pools, picture)
    without_average = [*theirs]
    theirs[-1] = F.avg_pool2d(theirs[-1], 3, stride=1, padding=1)
    assert_same(ours(picture), theirs)

    ours = blank(create_backbone, "vgg16", output_stride=8, average_pool=False)
    ours.features.load_state_dict(features.state_dict(), strict=True)
    assert_same(ours(picture), without_average)


def test_vgg16_takes_the_state_dict_of_torchvision(blank):
    names = {k: v.shape for k, v in vgg.make_layers(vgg.cfgs["D"]).state_dict(prefix="features.").items()}
    assert {k: v.shape for k, v in blank(create_backbone, "vgg16").state_dict().items()} == names
