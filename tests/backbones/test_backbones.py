"""What every backbone promises, and what atrous convolution promises: the plain network's features, more densely."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from atrous.backbones import BACKBONES, create_backbone
from atrous.backbones.base import block_rates
from atrous.backbones.resnet import Bottleneck, make_stage
from atrous.errors import InputError
from atrous.layers import Dilated, dilate

SIZES = [(1, 1), (1, 7), (33, 47)]


@pytest.mark.parametrize("name", BACKBONES)
def test_any_size_trains_with_batch_1(name):
    network = create_backbone(name, output_stride=8, in_channels=2).train()
    for height, width in SIZES:
        x = torch.randn(1, 2, height, width)
        stages = network(x)
        for stage, channels, stride in zip(stages, network.channels, network.strides, strict=True):
            assert stage.shape == (1, channels, -(-height // stride), -(-width // stride))
            assert stage.isfinite().all()
    stages[-1].square().mean().backward()
    silent = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []


PLAIN = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_large mobilenet_edgetpu xception41 legacy_xception".split()
)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("output_stride", [16, 8, 4])
@torch.no_grad()
def test_dense_features_hold_the_plain_ones(name, output_stride, blank, randomize, assert_same):
    """Every 32/os-th value of the dilated network is the undilated network's (DeepLab v1 sec. 3.1)."""
    x = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(2))
    options = {"dilate_from": "second"} if name == "mobilenet_v3_large" else {}
    plain = randomize(blank(create_backbone, name, output_stride=32))
    dense = blank(create_backbone, name, output_stride=output_stride, **options)
    dense.load_state_dict(plain.state_dict())
    for module in [*plain.modules(), *dense.modules()]:
        if type(module).__name__ == "SqueezeExcite":  # averages over the grid, which differs: leave it out
            module.forward = lambda x: x
    steps = [a // b for a, b in zip(plain.strides, dense.strides, strict=True)]
    assert steps[-1] == 32 // output_stride
    dense_maps = [f[..., ::s, ::s] for f, s in zip(dense(x), steps, strict=True)]
    assert_same(dense_maps, plain(x))


@pytest.mark.parametrize(
    ("name", "strides"),
    [("resnet50", (2, 4, 8, 16, 16)), ("vgg16", (2, 4, 8, 16, 16)), ("xception71", (2, 4, 8, 16, 16))],
)
def test_strides(name, strides, blank):
    network = blank(create_backbone, name)
    assert network.strides == strides
    assert network.output_stride == 16
    assert network.stage_at(4) == 1


def rates(layer, name="conv2"):
    return [m.dilation[0] for k, m in layer.named_modules() if k.endswith(name)]


def test_rates_of_deeplab_v3(blank):
    """Sec. 4.1: multi-grid (1, 2, 4) gives the rates 2, 4, 8 in block4 at output stride 16, twice that at 8."""
    grid = {"multi_grid": (1, 2, 4), "dilate_from": "first"}
    at_16 = blank(create_backbone, "resnet50", output_stride=16, **grid)
    at_8 = blank(create_backbone, "resnet50", output_stride=8, **grid)
    assert rates(at_16.layer4) == [2, 4, 8]
    assert rates(at_8.layer4) == [4, 8, 16]
    assert rates(at_8.layer3) == [2] * 6
    assert rates(at_16.layer3) == [1] * 6
    with pytest.raises(InputError, match=r"multi_grid=\(1, 2, 4\) has 3 rates, the stage has 2 blocks"):
        create_backbone("resnet18", multi_grid=(1, 2, 4))


def test_rates_of_deeplab_v2(blank):
    """Caffe's bottleneck: res4 has rate 2 and res5 rate 4 throughout; the strides are on the first 1x1."""
    caffe = blank(create_backbone, "resnet101", output_stride=8, stride_on_first_1x1=True)
    assert rates(caffe.layer3) == [2] * 23
    assert rates(caffe.layer4) == [4] * 3
    assert caffe.layer2[0].conv1.stride == (2, 2)
    assert caffe.layer2[0].conv2.stride == (1, 1)


def test_cascade_stage(blank):
    """DeepLab v3 sec. 3.2: blocks 5 to 7 are copies of block4; the rates double from one to the next."""
    plan = dilate((2, 2, 1, 2, 2, 2, 2, 2, 2), output_stride=16)
    blocks = [
        make_stage(Bottleneck, 2048, 512, 3, p, multi_grid=(1, 2, 1), dilate_from="first") for p in plan[-3:]
    ]
    assert [rates(block) for block in blocks] == [[4, 8, 4], [8, 16, 8], [16, 32, 16]]


@torch.no_grad()
def test_caffe_placement_is_the_other_one_behind_a_subsampling(blank, randomize):
    """A stride on the first 1x1 of a bottleneck is the undilated block on every second pixel."""
    plan = Dilated(2, 1, 1)
    caffe = randomize(blank(make_stage, Bottleneck, 64, 32, 2, plan, stride_on_first_1x1=True))
    plain = blank(make_stage, Bottleneck, 64, 32, 2, Dilated(1, 1, 1))
    plain.load_state_dict(caffe.state_dict())
    x = torch.randn(1, 64, 9, 12)
    torch.testing.assert_close(caffe(x), plain(x[..., ::2, ::2]))


@torch.no_grad()
def test_ceil_mode_pools_as_caffe(blank, randomize):
    ceil = randomize(blank(create_backbone, "resnet18", output_stride=8, ceil_mode=True))
    floor = blank(create_backbone, "resnet18", output_stride=8)
    floor.load_state_dict(ceil.state_dict())
    x = torch.randn(1, 3, 32, 32)
    pooled = F.max_pool2d(ceil(x)[0], 3, 2, padding=1, ceil_mode=True)
    assert pooled.shape[-1] == 9  # 16 -> 9, where rounding down gives 8
    torch.testing.assert_close(ceil(x)[1], ceil.layer1(pooled))
    assert floor(x)[1].shape[-1] == 8


def test_block_rates():
    plan = Dilated(stride=1, first_dilation=2, dilation=4)
    assert block_rates(plan, 3, "second") == [2, 4, 4]
    assert block_rates(plan, 3, "first") == [4, 4, 4]
    assert block_rates(plan, 3, "next") == [2, 2, 2]


@pytest.mark.parametrize(
    ("dilate_from", "expected"),
    [
        ("second", [1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4]),
        ("first", [2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4]),
        ("next", [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4]),
    ],
)
def test_rates_of_mobilenet_v2_at_output_stride_8(dilate_from, expected, blank):
    network = blank(create_backbone, "mobilenet_v2", output_stride=8, dilate_from=dilate_from)
    depthwise = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.dilation[0] for m in depthwise[-11:]] == expected


def test_messages():
    with pytest.raises(InputError, match="unknown backbone 'resnet5': did you mean 'resnet50'"):
        create_backbone("resnet5")
    with pytest.raises(
        InputError, match="unknown option of resnet50 'multi_gird': did you mean 'multi_grid'"
    ):
        create_backbone("resnet50", multi_gird=(1, 2, 4))
    for name in ("resnet50", "vgg16", "xception41", "mobilenet_v2", "mobilenet_v3_large"):
        with pytest.raises(InputError, match=r"output_stride=12 cannot be had here: choose one of \[2, 4, 8"):
            create_backbone(name, output_stride=12)
