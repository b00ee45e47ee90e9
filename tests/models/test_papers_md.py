"""The proof table of docs/papers.md: our parameters and multiply-adds beside the papers'.

`python tests/models/test_papers_md.py` writes the table anew; the test fails where the page says other than the code.
"""

from __future__ import annotations

import importlib
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from atrous.backbones.resnet import Bottleneck, ResNet
from atrous.info import _on_meta, describe
from atrous.models import MODELS, Model, create_model

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"
BEGIN, END = "<!-- begin: proof table -->", "<!-- end: proof table -->"


class Row(NamedTuple):
    title: str
    name: str
    backbone: str
    options: dict[str, Any]
    parameters: float | None  # millions, as printed
    multiply_adds: float | None  # billions, as printed
    source: str


V3, V3PLUS = "deeplab_v3", "deeplab_v3plus"
TF = {"deep_stem": True}  # the authors' ResNet-101 ("beta")
MOBILE: dict[str, Any] = {"atrous_rates": ()}
ROWS = [
    Row("v1 LargeFOV, VGG-16", "deeplab_v1", "vgg16", {}, 20.5, None, "v1 tab. 2"),
    Row("v1 4x4, rate 8", "deeplab_v1", "vgg16", {"fc6_kernel": 4, "fc6_rate": 8, "fc_channels": 4096}, 65.1, None,
        "v1 tab. 2"),
    Row("v1 7x7, rate 4", "deeplab_v1", "vgg16", {"fc6_kernel": 7, "fc6_rate": 4, "fc_channels": 4096}, 134.3, None,
        "v1 tab. 2"),
    Row("v3 ResNet-101", V3, "resnet101", TF, 58.16, 81.02, "v3+ tab. 3, MobileNetV2 tab. 7"),
    Row("v3 ResNet-101, stride 8", V3, "resnet101", TF | {"output_stride": 8}, 58.16, 276.18, "v3+ tab. 3"),
    Row("v3+ ResNet-101", V3PLUS, "resnet101", TF, None, 101.28, "v3+ tab. 3"),
    Row("v3+ ResNet-101, stride 8", V3PLUS, "resnet101", TF | {"output_stride": 8}, None, 297.92, "v3+ tab. 3"),
    Row("v3+ Xception-65", V3PLUS, "xception65", {}, None, 89.76, "v3+ tab. 5"),
    Row("v3+ Xception-65, separable", V3PLUS, "xception65", {"separable": True}, None, 54.17, "v3+ tab. 5"),
    Row("v3+ Xception-65, separable, stride 8", V3PLUS, "xception65", {"separable": True, "output_stride": 8}, None,
        177.10, "v3+ tab. 5"),
    Row("v3 MobileNetV2, no atrous branches", V3, "mobilenet_v2", MOBILE, 2.11, 2.75, "MobileNetV2 tab. 7"),
    Row("v3 MobileNetV2 0.5, no atrous branches", V3, "mobilenet_v2", MOBILE | {"width": 0.5, "divisible_by": 1}, None,
        0.88, "TF model zoo"),
]  # fmt: skip

# the two that stay, explained on the page
KNOWN = {"v3+ ResNet-101": 0.015, "v3 MobileNetV2 0.5, no atrous branches": 0.015}


def test_the_page_says_what_the_code_does() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert table() in text, f"{PAGE.name} is behind: python {Path(__file__).relative_to(PAGE.parents[1])}"


def claims() -> list[tuple[str, str]]:
    """Of each built model of the page, the lines that are said to be true of it."""
    found, built = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"`model = (create_model\(.*\))`", line):
            built = heading[1]
        elif line.startswith("#"):
            built = ""
        elif built and (claim := re.match(r"\| .* \| `(model.*|.*model.*)` \|$", line)):
            found.append((built, claim[1]))
    return found


@pytest.mark.parametrize(("built", "claim"), claims())
def test_what_the_page_says_of_a_built_model_is_true(built: str, claim: str) -> None:
    with torch.device("meta"):
        model = eval(built, {"create_model": create_model})
    assert eval(claim, {"model": model}) is True


def test_the_page_has_claims_for_every_model() -> None:
    built = {claim[0] for claim in claims()}
    assert all(any(f'"{name}"' in each for each in built) for name in MODELS)
    rows = PAGE.read_text(encoding="utf-8").count("| `model") + PAGE.read_text(encoding="utf-8").count("| `[")
    assert len(claims()) >= rows  # no line of the tables is passed over


def test_every_symbol_of_the_page_is_there() -> None:
    """`module.Class.attribute` below atrous, as the table of sections names them."""
    text = PAGE.read_text(encoding="utf-8")
    rooms = "layers|backbones|models|crf|losses|info"
    symbols = set(re.findall(rf"`((?:{rooms})(?:\.\w+)+)", text))
    assert len(symbols) > 15
    for symbol in symbols:
        parts = symbol.split(".")
        for length in range(len(parts), 0, -1):
            try:
                thing: Any = importlib.import_module(".".join(["atrous", *parts[:length]]))
            except ModuleNotFoundError:
                continue
            for name in parts[length:]:
                thing = getattr(thing, name)
            break
    named = re.findall(r"recipes/(\w+)\.yaml", text)
    assert all((PAGE.parents[1] / "recipes" / f"{name}.yaml").is_file() for name in named)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_paper_figures_are_ours(row: Row) -> None:
    """Parameters to the printed digit; multiply-adds within 0.4 % once they are counted as TensorFlow ran them."""
    model = build(row)
    info = describe(model)
    if row.parameters is not None:
        digits = len(str(row.parameters).split(".")[1])
        assert round(info.parameters / 1e6, digits) == row.parameters
    if row.multiply_adds is not None:
        tolerance = KNOWN.get(row.title, 0.004)
        assert tensorflow_multiply_adds(model) / 1e9 == pytest.approx(row.multiply_adds, rel=tolerance)


def build(row: Row) -> Model:
    with torch.device("meta"):
        return create_model(row.name, row.backbone, **row.options)


def tensorflow_multiply_adds(model: Model) -> int:
    """What TensorFlow 1 seems to have run for the same network at 513x513. It differs from ours in two ways.

    1. An atrous convolution was a plain one on a rearranged batch (space_to_batch), so its grid was padded to a
       multiple of the rate: 33 points with rate 8 cost as much as 40.
    2. Its ResNets have the stride on the last unit of a block, not on the first of the next.
    """
    meta = _on_meta(model)
    total = 0

    def count(conv: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        assert isinstance(conv, nn.Conv2d)
        rate = conv.dilation[0]
        height, width = (-(-side // rate) * rate for side in out.shape[-2:])
        total += conv.weight.numel() * height * width

    areas: dict[nn.Module, int] = {}
    for module in meta.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    if isinstance(meta.backbone, ResNet):
        for layer in (meta.backbone.layer1, meta.backbone.layer2, meta.backbone.layer3, meta.backbone.layer4):
            layer.register_forward_hook(lambda m, _, out: areas.__setitem__(m, out.shape[-2] * out.shape[-1]))
    with torch.no_grad():
        meta.scores(torch.empty(1, 3, 513, 513, device="meta"))
    layers = list(areas)
    for here, after in pairwise(layers):
        last, first = here[-1], after[0]
        assert isinstance(last, Bottleneck)
        moved = last.conv2.weight.numel() + last.conv3.weight.numel() + first.conv1.weight.numel()
        total -= moved * (areas[here] - areas[after])
    return total


def table() -> str:
    lines = [
        "| model | parameters | paper | multiply-adds | counted as TF ran it | paper | TF to paper | source |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in ROWS:
        model = build(row)
        info = describe(model)
        ours = f"{info.multiply_adds / 1e9:.2f} B"
        tf = theirs = ratio = ""
        if row.multiply_adds is not None:
            counted = tensorflow_multiply_adds(model) / 1e9
            tf, theirs = f"{counted:.2f} B", f"{row.multiply_adds:.2f} B"
            ratio = f"{100 * (counted / row.multiply_adds - 1):+.1f} %"
        paper = "" if row.parameters is None else f"{row.parameters} M"
        lines.append(
            f"| {row.title} | {info.parameters / 1e6:.2f} M | {paper} | {ours} | {tf} | {theirs} | {ratio} "
            f"| {row.source} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
