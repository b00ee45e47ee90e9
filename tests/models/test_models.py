"""What holds for every model: any size, any channels, one picture in training, gradients, learning rates, names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from atrous.config import ModelConfig
from atrous.errors import InputError
from atrous.models import MODELS, backbone_options, create_model, model_options

VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("deeplab_v1", "vgg16", {}),
    ("deeplab_v1", "vgg16", {"msc": True}),
    ("deeplab_v1", "resnet18", {"msc": True}),
    ("deeplab_v2", "resnet18", {"msc": True}),
    ("deeplab_v2", "vgg16", {"head": "large_fov"}),
    ("deeplab_v2", "mobilenet_v2", {"head": "aspp_s"}),
    ("pspnet", "resnet18", {}),
    ("pspnet", "drn_d_22", {"aux": False}),
    ("deeplab_v3", "resnet18", {"aux": True, "extra_conv": True}),
    ("deeplab_v3", "resnet18", {"form": "cascade", "multi_grid": (1, 2)}),
    ("deeplab_v3", "mobilenet_v2", {"atrous_rates": ()}),
    ("deeplab_v3", "mobilenet_v3_large", {"separable": True}),
    ("deeplab_v3plus", "resnet18", {}),
    ("deeplab_v3plus", "xception41", {"separable": True}),
    ("deeplab_v3plus", "timm:mobilenetv3_small_050", {}),
]
IDS = [f"{name} {backbone} {' '.join(options)}" for name, backbone, options in VARIANTS]
variants = pytest.mark.parametrize(("name", "backbone", "options"), VARIANTS, ids=IDS)


@variants
def test_any_size_trains_and_predicts(name: str, backbone: str, options: dict[str, Any]) -> None:
    """One picture of any size in training: gradients reach every parameter; evaluation does not depend on the batch."""
    torch.manual_seed(0)
    model = create_model(name, backbone, num_classes=4, **options)
    # timm has its own batch norms, which refuse to train on a single value
    for size in ((33, 33), (65, 33)) if backbone.startswith("timm:") else ((1, 1), (1, 7), (65, 33)):
        model.train()
        model.zero_grad()
        scores = model.scores(torch.randn(1, 3, *size))
        sum((y.float() ** 2).sum() for y in scores.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []

    model.eval()
    pictures = torch.randn(2, 3, 33, 17)
    with torch.inference_mode():
        both = model(pictures)
        assert both.shape == (2, 4, 33, 17)
        torch.testing.assert_close(both[1:], model(pictures[1:]), atol=1e-4, rtol=1e-3)
        assert set(model.scores(pictures)) == {"out"}


@pytest.mark.parametrize("in_channels", [1, 5])
@pytest.mark.parametrize("name", list(MODELS))
def test_other_channels_than_three(name: str, in_channels: int) -> None:
    """The last channel matters, in each model's own branches too (v1's msc reads the picture itself)."""
    torch.manual_seed(0)
    options = {"msc": True} if "msc" in model_options(name) else {}
    model = create_model(name, "resnet18", num_classes=2, in_channels=in_channels, **options).eval()
    picture = torch.randn(1, in_channels, 33, 33)
    changed = picture.clone()
    changed[:, -1] += 1
    with torch.inference_mode():
        assert (model(picture) - model(changed)).abs().max() > 1e-6


@variants
def test_learning_rate_groups_have_every_parameter_once(
    name: str, backbone: str, options: dict[str, Any]
) -> None:
    model = create_model(name, backbone, **options)
    listed = [id(p) for group, _ in model.learning_rate_groups() for p in group]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


def multiples(model: Any) -> dict[str, float]:
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: multiple for group, multiple in model.learning_rate_groups() for p in group}


def test_learning_rates_are_the_papers() -> None:
    v1 = multiples(create_model("deeplab_v1"))
    assert {n for n, m in v1.items() if m == 10} == {"head.fc8.weight", "head.fc8.bias"}
    assert set(v1.values()) == {1, 10}

    v2 = multiples(create_model("deeplab_v2", "resnet18"))
    assert {n for n, m in v2.items() if m == 10} == {f"branches.{i}.weight" for i in range(4)}
    assert {n for n, m in v2.items() if m == 20} == {f"branches.{i}.bias" for i in range(4)}

    v2_vgg = multiples(create_model("deeplab_v2", "vgg16"))
    assert {n for n, m in v2_vgg.items() if m == 20} == {f"branches.{i}.fc8.bias" for i in range(4)}
    assert v2_vgg["branches.0.fc6.weight"] == 1

    for name in ("pspnet", "deeplab_v3", "deeplab_v3plus"):
        for parameter, multiple in multiples(create_model(name, "resnet18")).items():
            assert multiple == (1 if parameter.startswith("backbone.") else 10)


@pytest.mark.parametrize("name", list(MODELS))
def test_output_stride_keeps_the_weights(name: str) -> None:
    fine = create_model(name, "resnet18", output_stride=8)
    coarse = create_model(name, "resnet18", output_stride=32)
    fine.load_state_dict(coarse.state_dict())
    picture = torch.randn(1, 3, 129, 129)
    with torch.inference_mode():
        sizes = [tuple(model.eval().scores(picture)["out"].shape[-2:]) for model in (fine, coarse)]
    assert sizes == ([(33, 33)] * 2 if name == "deeplab_v3plus" else [(17, 17), (5, 5)])


@pytest.mark.parametrize("name", list(MODELS))
def test_config_rebuilds_the_model(name: str) -> None:
    options: dict[str, Any] = {"deep_stem": True, "align_corners": True}
    model = create_model(name, "resnet50", num_classes=3, output_stride=16, in_channels=2, **options)
    config = model.config
    assert (config.name, config.backbone, config.num_classes, config.output_stride, config.in_channels) == (
        (name, "resnet50", 3, 16, 2)
    )
    assert options.items() <= config.options.items()
    again = create_model(
        config.name, config.backbone, config.num_classes, config.output_stride, None, config.in_channels,
        **config.options,
    )  # fmt: skip
    assert str(again) == str(model)
    assert again.config == config


def test_defaults_are_the_papers() -> None:
    expected = {
        "deeplab_v1": ("vgg16", 8), "deeplab_v2": ("resnet101", 8), "pspnet": ("resnet50", 8),
        "deeplab_v3": ("resnet101", 16), "deeplab_v3plus": ("resnet101", 16),
    }  # fmt: skip
    with torch.device("meta"):
        for name, paper in expected.items():
            config = create_model(name).config
            assert config == ModelConfig(name, *(paper[0], 21, paper[1]), options=config.options)


@pytest.mark.parametrize("name", list(MODELS))
def test_no_option_belongs_to_a_model_and_to_a_backbone(name: str) -> None:
    for backbone in ("vgg16", "resnet50", "xception65", "mobilenet_v2", "mobilenet_v3_large", "drn_c_26"):
        assert not set(model_options(name)) & set(backbone_options(backbone))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("deeplab_v4",), {}, "unknown model 'deeplab_v4': did you mean 'deeplab_v"),
        (("deeplab_v3", "resnet51"), {}, "unknown backbone 'resnet51': did you mean 'resnet50'"),
        (("deeplab_v3",), {"atrous_rate": (6,)}, "did you mean 'atrous_rates'"),
        (("deeplab_v3", "resnet50"), {"deepstem": True}, "did you mean 'deep_stem'"),
        (("pspnet",), {"separable": True}, "resnet50 has deep_stem"),
        (("deeplab_v3", "timm:resnet18"), {"width": 2}, "timm:resnet18 has encoder_depth"),
        (("deeplab_v3", "mobilenet_v2"), {"form": "cascade"}, "a ResNet"),
        (("deeplab_v3",), {"form": "casade"}, "did you mean 'cascade'"),
        (("deeplab_v2",), {"head": "aspp"}, "did you mean 'aspp_"),
        (("deeplab_v1",), {"fc6_kernel": 4, "fc6_rate": 3}, "even rate"),
        (("deeplab_v3", "resnet18", 0), {}, "num_classes=0"),
        (("deeplab_v3", "resnet18", 21, 5), {}, "output_stride"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        create_model(*arguments, **options)
    assert message in str(caught.value)


def test_align_corners_is_the_final_resize() -> None:
    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", "resnet18", num_classes=2, align_corners=True).eval()
    picture = torch.randn(1, 3, 65, 65)
    with torch.inference_mode():
        out, full = model.scores(picture)["out"], model(picture)
    # 65 = 4 * 16 + 1: corners meet
    torch.testing.assert_close(full[..., ::4, ::4], out, atol=1e-6, rtol=1e-5)


def test_classifiers_start_small() -> None:
    """N(0, 0.01), bias 0 (v1 sec. 5 and the authors' code)."""
    model = create_model("deeplab_v1")
    fc8 = model.get_submodule("head.fc8")
    assert isinstance(fc8, nn.Conv2d) and fc8.bias is not None
    assert fc8.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert fc8.bias.abs().max() == 0
