"""`describe` against torch's own operation counter, and against gradients that show what a score depends on."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atrous.backbones import BACKBONES
from atrous.cli import main
from atrous.info import describe, table
from atrous.models import MODELS, create_model

VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("deeplab_v1", "vgg16", {"msc": True}),
    ("deeplab_v2", "resnet18", {"msc": True}),
    ("pspnet", "resnet50", {}),
    ("deeplab_v3", "mobilenet_v3_large", {"aux": True}),
    ("deeplab_v3", "resnet18", {"form": "cascade"}),
    ("deeplab_v3plus", "xception65", {"separable": True}),
    ("deeplab_v3plus", "drn_c_26", {"output_stride": 8}),
    ("deeplab_v3plus", "timm:convnext_atto", {}),
]


@pytest.mark.parametrize(("name", "backbone", "options"), VARIANTS, ids=[f"{n} {b}" for n, b, _ in VARIANTS])
def test_multiply_adds_are_half_of_torchs_operations(
    name: str, backbone: str, options: dict[str, Any]
) -> None:
    with torch.device("meta"):
        model = create_model(name, backbone, **options).eval()
    info = describe(model, (97, 65))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.scores(torch.empty(1, 3, 97, 65, device="meta"))
    assert 2 * info.multiply_adds == counter.get_total_flops()
    assert info.multiply_adds == sum(part.multiply_adds for part in info.parts)
    head = model.aux if getattr(model, "aux", None) is not None else nn.Identity()
    unused = sum(p.numel() for p in head.parameters())
    assert sum(part.parameters for part in info.parts) + unused == info.parameters
    assert info.parameters == sum(p.numel() for p in model.parameters())


def seen_height(model: Any, size: int) -> int:
    """Rows of the picture with a gradient from the centre score, with all weights positive and no maximum."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    x = torch.ones(1, 1, size, 65, dtype=torch.float64, requires_grad=True)
    scores = model.double().eval().scores(x)["out"]
    scores[0, 0, scores.shape[-2] // 2, scores.shape[-1] // 2].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows[0] > 0 and rows[-1] < size - 1, "the picture is too small for this"
    return int(rows[-1] - rows[0] + 1)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("deeplab_v2", {"head": "large_fov"}, 657),
        ("deeplab_v2", {"head": "aspp_s"}, 657),
        ("deeplab_v1", {"fc6_rate": 4, "output_stride": 16}, 657),
    ],
)
def test_receptive_field_is_what_a_gradient_reaches(name: str, options: dict[str, Any], size: int) -> None:
    model = create_model(name, "resnet18", num_classes=1, in_channels=1, **options)
    info = describe(model, (size, size))
    assert not info.sees_whole_image
    assert seen_height(model, size) == info.receptive_field


def test_receptive_field_of_vgg_by_the_closed_form() -> None:
    """Sum of (kernel - 1) x rate x stride over the layers of LargeFOV, plus 1."""
    layers = [(2, 1, 1)] * 2 + [(2, 1, 1)]  # conv1, pool1: (kernel - 1, rate, stride before it)
    layers += [(2, 1, 2)] * 3 + [(2, 1, 4)] * 4 + [(2, 1, 8)] * 4  # to pool2, pool3, pool4
    layers += [(2, 2, 8)] * 3 + [(2, 1, 8)] * 2 + [(2, 12, 8)]  # conv5 with rate 2, pool5, average pool, fc6
    assert describe(create_model("deeplab_v1")).receptive_field == 1 + sum(k * r * s for k, r, s in layers)


@pytest.mark.parametrize("size", [(513, 513), (512, 640), (65, 65)])
def test_receptive_field_of_v3plus_does_not_depend_on_the_size(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        encoder = create_model("deeplab_v3", "resnet50")
        model = create_model("deeplab_v3plus", "resnet50")
    info = describe(model, size)
    # one step of 16 for the resize, two 3x3 on stride 4
    assert info.receptive_field == describe(encoder, size).receptive_field + 16 + 2 * 2 * 4
    assert info.sees_whole_image
    assert info.score_stride == 4


def test_parts_of_v3plus() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", "resnet101")
    info = describe(model)
    parts = {part.name: part for part in info.parts}
    assert [parts[f"backbone {i}"].channels for i in range(1, 6)] == [64, 256, 512, 1024, 2048]
    assert [parts[f"backbone {i}"].height for i in range(1, 6)] == [257, 129, 65, 33, 33]
    assert [parts[f"backbone {i}"].stride for i in range(1, 6)] == [2, 4, 8, 16, 16]
    assert [parts[f"aspp.branches.{i}"].rates for i in range(5)] == [(), (6,), (12,), (18,), ()]
    assert parts["aspp.branches.4"].stride is None  # image pooling lies on no grid
    assert parts["backbone 5"].rates == (2, 4, 8)
    assert parts["decoder.refine"].multiply_adds == 129 * 129 * 9 * 256 * (304 + 256)
    assert parts["backbone 1"].parameters == 64 * 3 * 49 + 128
    assert info.atrous_rates == (2, 4, 6, 8, 12, 18)
    assert (info.output_stride, info.score_stride) == (16, 4)


@pytest.mark.parametrize("backbone", [*BACKBONES, "timm:resnet18", "timm:efficientnet_b0"])
def test_every_backbone_is_described(backbone: str) -> None:
    """The stages have the channels that the backbone says; all but the auxiliary parameters are in some part."""
    with torch.device("meta"):
        model = create_model("deeplab_v3", backbone, output_stride=8)
    info = describe(model, (65, 65))
    stages = [part for part in info.parts if part.name.startswith("backbone")]
    assert tuple(part.channels for part in stages) == model.backbone.channels
    assert tuple(part.stride for part in stages) == model.backbone.strides
    assert tuple(part.height for part in stages) == tuple(
        -(-65 // stride) for stride in model.backbone.strides
    )
    assert sum(part.parameters for part in info.parts) == info.parameters
    assert all(part.multiply_adds > 0 for part in stages)


@pytest.mark.parametrize("name", list(MODELS))
def test_describe_leaves_the_model_as_it_is(name: str) -> None:
    model = create_model(name, "resnet18").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    describe(model, (33, 33))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_table_has_the_sums() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v1")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(describe(model)))
    text = console.export_text()
    assert "20.51 M" in text and "128.58 B" in text and "receptive field" in text and "backbone 5" in text


def test_a_checkpoint_at_another_output_stride(capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", "box", "--size", "64", "--output_stride", "8"])
    said = capsys.readouterr().out
    assert "output stride 8" in said
    assert "rates 2 4 12 24 36" in said  # the pyramid's of 6 12 18 doubled (v3 sec. 3.3)


@pytest.mark.parametrize(
    "flag",
    [
        ["--backbone", "resnet18"],
        ["--num_classes", "5"],
        ["--in_channels", "4"],
        ["--model_options.width", "0.5"],
    ],
)
def test_what_a_checkpoint_says_itself_is_not_asked_for(flag: list[str], refused: Callable[..., str]) -> None:
    assert "goes with the name of a model" in refused(["info", "box", *flag])
