"""What each paper says of its model, against arithmetic done here by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import atrous.models
from atrous.layers import scale_rates
from atrous.models import create_model
from atrous.models.deeplab_v3 import ASPP, Cascade, aspp_rates
from atrous.models.pspnet import PyramidPooling


def randomise(model: nn.Module) -> nn.Module:
    """Batch norm statistics as after training, in evaluation mode."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def bilinear(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


# --- v1 ---------------------------------------------------------------------------------------------------------


def test_v1_large_fov_has_20_5_million_parameters_and_41_scores_for_321() -> None:
    model = create_model("deeplab_v1").eval()
    convolutions = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    vgg = sum(9 * i * o + o for i, o in convolutions + [(512, 512)] * 5)
    assert parameters(model) == vgg + (9 * 512 + 1) * 1024 + 1025 * 1024 + 1025 * 21 == 20_505_429
    with torch.inference_mode():
        assert model.scores(torch.randn(1, 3, 321, 321))["out"].shape == (1, 21, 41, 41)


def test_v1_msc_adds_five_rows_of_scores() -> None:
    """The picture and pool1 .. pool4 through 3x3 (stride 8, 4, 2, 1, 1), 1x1, 1x1; summed with fc8's."""
    torch.manual_seed(0)
    model = create_model("deeplab_v1", num_classes=3, msc=True).eval()
    for name, p in model.named_parameters():
        if ".fc8." in name:
            nn.init.normal_(p, std=0.1)
    weights = dict(model.named_parameters())
    x = torch.randn(1, 3, 65, 50)
    with torch.inference_mode():
        pools = model.backbone(x)
        y = F.relu(F.conv2d(pools[-1], weights["head.fc6.weight"], weights["head.fc6.bias"], 1, 12, 12))
        y = F.relu(F.conv2d(y, weights["head.fc7.weight"], weights["head.fc7.bias"]))
        expected = F.conv2d(y, weights["head.fc8.weight"], weights["head.fc8.bias"])
        for i, (shallow, stride) in enumerate(zip((x, *pools[:4]), (8, 4, 2, 1, 1), strict=True)):
            w = {
                k.removeprefix(f"scale_branches.{i}."): v for k, v in weights.items() if f"branches.{i}." in k
            }
            assert w["conv1.weight"].shape[0] == w["conv2.weight"].shape[0] == 128
            y = F.relu(F.conv2d(shallow, w["conv1.weight"], w["conv1.bias"], stride, 1))
            y = F.relu(F.conv2d(y, w["conv2.weight"], w["conv2.bias"]))
            expected = expected + F.conv2d(y, w["fc8.weight"], w["fc8.bias"])
        torch.testing.assert_close(model.scores(x)["out"], expected, atol=1e-5, rtol=1e-4)


def test_v1_drops_out_behind_fc6_and_fc7_alone() -> None:
    head = create_model("deeplab_v1").get_submodule("head")
    assert [n for n, m in head.named_children() if isinstance(m, nn.Dropout) and m.p == 0.5] == [
        "drop6",
        "drop7",
    ]
    assert list(dict(head.named_children())) == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]


@pytest.mark.parametrize("name", ["deeplab_v1", "deeplab_v2"])
def test_pretrained_vgg_gives_fc6_and_fc7(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pretrained` reaches the head: the decimated classifier is in every branch, fc8 stays random."""
    decimated = {
        "fc6.weight": torch.randn(1024, 512, 3, 3), "fc6.bias": torch.randn(1024),
        "fc7.weight": torch.randn(1024, 1024, 1, 1), "fc7.bias": torch.randn(1024),
    }  # fmt: skip
    create_backbone = atrous.models.create_backbone
    monkeypatch.setattr(
        atrous.models,
        "create_backbone",
        lambda name, pretrained, **options: create_backbone(name, **options),
    )
    monkeypatch.setattr(
        atrous.models, "_vgg_weights", lambda pretrained: {"classifier.0.weight": torch.zeros(1)}
    )
    monkeypatch.setattr(atrous.models, "decimate_fc", lambda weights: decimated)
    weights = create_model(name, "vgg16", pretrained="imagenet").state_dict()
    copies = [value for key, value in weights.items() if key.endswith("fc6.weight")]
    assert len(copies) == (1 if name == "deeplab_v1" else 4)
    assert all(torch.equal(value, decimated["fc6.weight"]) for value in copies)
    assert all(torch.equal(v, decimated["fc7.bias"]) for k, v in weights.items() if k.endswith("fc7.bias"))
    assert all(v.abs().max() < 0.1 for k, v in weights.items() if k.endswith("fc8.weight"))


# --- v2 ---------------------------------------------------------------------------------------------------------


def test_v2_msc_is_the_maximum_over_three_scales() -> None:
    torch.manual_seed(0)
    model = randomise(create_model("deeplab_v2", "resnet18", num_classes=3, msc=True))
    single = create_model("deeplab_v2", "resnet18", num_classes=3).eval()
    single.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 97, 130)
    with torch.inference_mode():
        one = single.scores(x)["out"]
        scaled = [
            single.scores(F.interpolate(x, scale_factor=s, mode="bilinear", align_corners=False))["out"]
            for s in (0.5, 0.75)
        ]
        expected = torch.stack([one, *(bilinear(y, one) for y in scaled)]).amax(dim=0)
        torch.testing.assert_close(model(x), bilinear(expected, x), atol=1e-6, rtol=1e-5)
        assert any((bilinear(y, one) > one).any() for y in scaled), "the smaller scales never won"

        for module in model.modules():  # as in training with frozen batch norm
            if not isinstance(module, nn.BatchNorm2d):
                module.training = True
        scores = model.scores(x)
    assert list(scores) == ["out", "scale_0.5", "scale_0.75", "scale_1"]
    for key, value in zip(("scale_0.5", "scale_0.75", "scale_1"), [*scaled, one], strict=True):
        torch.testing.assert_close(scores[key], value)


@pytest.mark.parametrize(
    ("head", "rates"), [("aspp_l", (6, 12, 18, 24)), ("aspp_s", (2, 4, 8, 12)), ("large_fov", (12,))]
)
def test_v2_on_a_resnet_sums_atrous_branches(head: str, rates: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = create_model("deeplab_v2", "resnet18", num_classes=3, head=head).eval()
    x = torch.randn(1, 3, 65, 65)
    with torch.inference_mode():
        features = model.backbone(x)[-1]
        w = model.state_dict()
        expected = sum(
            F.conv2d(features, w[f"branches.{i}.weight"], w[f"branches.{i}.bias"], 1, rate, rate)
            for i, rate in enumerate(rates)
        )
        torch.testing.assert_close(model.scores(x)["out"], expected, atol=1e-5, rtol=1e-4)
        assert features.shape[-1] == 9


def test_v2_on_vgg_sums_fully_connected_branches() -> None:
    torch.manual_seed(0)
    model = create_model("deeplab_v2", "vgg16", num_classes=3).eval()
    w = model.state_dict()
    x = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        features = model.backbone(x)[-1]
        expected = torch.zeros(1, 3, *features.shape[-2:])
        for i, rate in enumerate((6, 12, 18, 24)):
            p = f"branches.{i}."
            y = F.relu(F.conv2d(features, w[p + "fc6.weight"], w[p + "fc6.bias"], 1, rate, rate))
            y = F.relu(F.conv2d(y, w[p + "fc7.weight"], w[p + "fc7.bias"]))
            expected += F.conv2d(y, w[p + "fc8.weight"], w[p + "fc8.bias"])
        torch.testing.assert_close(model.scores(x)["out"], expected, atol=1e-5, rtol=1e-4)


# --- PSPNet -----------------------------------------------------------------------------------------------------


def test_pyramid_pooling_by_hand() -> None:
    """Bin (i, j) of b x b is the mean from floor(i h / b) to ceil((i + 1) h / b); then 1x1, and up again."""
    torch.manual_seed(0)
    pyramid = PyramidPooling(16).eval()
    x = torch.randn(1, 16, 13, 10)
    height, width = 13, 10
    expected = [x]
    with torch.inference_mode():
        for bins, conv in zip((1, 2, 3, 6), pyramid.levels, strict=True):
            pooled = torch.empty(1, 16, bins, bins)
            for i in range(bins):
                for j in range(bins):
                    rows = slice(math.floor(i * height / bins), math.ceil((i + 1) * height / bins))
                    columns = slice(math.floor(j * width / bins), math.ceil((j + 1) * width / bins))
                    pooled[:, :, i, j] = x[:, :, rows, columns].mean(dim=(2, 3))
            expected.append(bilinear(conv(pooled), x))
        torch.testing.assert_close(pyramid(x), torch.cat(expected, dim=1), atol=1e-6, rtol=1e-5)
    assert pyramid.out_channels == 32


def test_pspnet_has_the_papers_widths_and_its_auxiliary_head_in_training_alone() -> None:
    with torch.device("meta"):
        model = create_model("pspnet")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["head.0.weight"] == (512, 4096, 3, 3)
    assert shapes["aux.0.weight"] == (256, 1024, 3, 3)
    assert shapes["backbone.conv1.0.weight"] == (64, 3, 3, 3) and shapes["backbone.conv1.6.weight"] == (
        128,
        64,
        3,
        3,
    )
    picture = torch.empty(2, 3, 65, 65, device="meta")
    assert set(model.train().scores(picture)) == {"out", "aux"}
    assert set(model.eval().scores(picture)) == {"out"}


# --- v3 ---------------------------------------------------------------------------------------------------------


def test_rates_follow_the_output_stride() -> None:
    assert [aspp_rates(stride) for stride in (8, 16, 32)] == [(12, 24, 36), (6, 12, 18), (3, 6, 9)]
    assert scale_rates((6, 12, 18, 24), 8, 16) == (3, 6, 9, 12)


@pytest.mark.parametrize("separable", [False, True])
def test_doubled_rates_on_a_grid_of_twice_the_points_give_the_same_scores(separable: bool) -> None:
    """At every second point; the picture's mean is the same on both grids, by construction."""
    torch.manual_seed(0)
    fine, coarse = (ASPP(8, aspp_rates(stride), channels=4, separable=separable) for stride in (8, 16))
    randomise(fine)
    coarse.load_state_dict(fine.state_dict())
    coarse.eval()
    x = torch.randn(1, 8, 65, 65)
    even = torch.zeros(65, 65, dtype=torch.bool)
    even[::2, ::2] = True
    mean = x[..., even].mean(dim=-1, keepdim=True)
    x[..., ~even] += mean - x[..., ~even].mean(dim=-1, keepdim=True)
    with torch.inference_mode():
        torch.testing.assert_close(fine(x)[..., ::2, ::2], coarse(x[..., ::2, ::2]), atol=1e-5, rtol=1e-4)


def test_image_pooling_is_the_mean_everywhere() -> None:
    """The last branch of the mobile form, by hand: mean, 1x1, batch norm, ReLU, the same at every point."""
    torch.manual_seed(0)
    aspp = randomise(ASPP(8, (), channels=4))
    assert isinstance(aspp, ASPP) and len(aspp.branches) == 2
    x = torch.randn(1, 8, 5, 7)
    w = aspp.state_dict()
    with torch.inference_mode():
        p = "branches.1.conv."
        y = torch.einsum("oi,ni->no", w[p + "0.weight"][..., 0, 0], x.mean(dim=(2, 3)))
        y = (y - w[p + "1.running_mean"]) / torch.sqrt(w[p + "1.running_var"] + 1e-5)
        expected = F.relu(y * w[p + "1.weight"] + w[p + "1.bias"])
        torch.testing.assert_close(aspp.branches[1](x), expected[..., None, None].expand(1, 4, 5, 7))


@pytest.mark.parametrize(
    ("output_stride", "blocks"),
    [
        (16, [(2, 4, 8), (4, 8, 16), (8, 16, 32), (16, 32, 64)]),
        (8, [(4, 8, 16), (8, 16, 32), (16, 32, 64), (32, 64, 128)]),
    ],
)
def test_cascade_rates_double_from_block_to_block(output_stride: int, blocks: list[tuple[int, ...]]) -> None:
    """Fig. 3b with multi-grid (1, 2, 4): block 4 has rates 2, 4, 8 (sec. 3.2.1), block 7 eight times those."""
    with torch.device("meta"):
        model = create_model("deeplab_v3", "resnet50", output_stride=output_stride, form="cascade")
    assert isinstance(model.context, Cascade)
    found = [
        tuple(unit.conv2.dilation[0] for unit in block) for block in (model.backbone.layer4, *model.context)
    ]
    assert found == blocks
    x = torch.empty(1, 3, 65, 65, device="meta")
    assert model.eval().scores(x)["out"].shape[-1] == 64 // output_stride + 1
    block4 = {k: v.shape for k, v in model.context[2].state_dict().items() if "num_batches" not in k}
    assert block4["0.conv1.weight"] == (512, 2048, 1, 1)


# --- v3+ --------------------------------------------------------------------------------------------------------


def test_v3plus_is_v3_and_a_decoder() -> None:
    """Sec. 3.1, fig. 2, written once more with functions alone."""
    torch.manual_seed(0)
    model = randomise(create_model("deeplab_v3plus", "resnet18", num_classes=3))
    w = model.state_dict()

    def conv_bn_relu(x: Tensor, name: str, padding: int) -> Tensor:
        x = F.conv2d(x, w[f"{name}.0.weight"], padding=padding)
        p = f"{name}.1."
        return F.relu(
            F.batch_norm(x, w[p + "running_mean"], w[p + "running_var"], w[p + "weight"], w[p + "bias"])
        )

    x = torch.randn(1, 3, 97, 65)
    with torch.inference_mode():
        b = model.backbone
        conv2 = b.layer1(b.maxpool(F.relu(b.bn1(b.conv1(x)))))
        encoded = model.aspp(b.layer4(b.layer3(b.layer2(conv2))))
        assert encoded.shape == (1, 256, 7, 5) and conv2.shape == (1, 64, 25, 17)
        low_level = conv_bn_relu(conv2, "decoder.reduce", 0)
        assert low_level.shape[1] == 48
        y = torch.cat([bilinear(encoded, conv2), low_level], dim=1)
        y = conv_bn_relu(conv_bn_relu(y, "decoder.refine.0", 1), "decoder.refine.1", 1)
        y = F.conv2d(y, w["classifier.weight"], w["classifier.bias"])
        torch.testing.assert_close(model(x), bilinear(y, x), atol=1e-5, rtol=1e-4)


def test_separable_touches_every_3x3_of_aspp_and_decoder() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", "xception65", separable=True)
    kernels = [
        (m.groups, m.in_channels, m.dilation[0])
        for n, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and not n.startswith("backbone.")
    ]
    assert kernels == [(2048, 2048, r) for r in (6, 12, 18)] + [(304, 304, 1), (256, 256, 1)]
