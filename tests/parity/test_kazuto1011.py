"""The logits of kazuto1011/deeplab-pytorch, from kept tables (make_kazuto1011.py writes them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from seeded import difference, draw_picture, read_table, table_difference, with_options
from torch import Tensor

from atrous.data.class_names import COCO, COCO_STUFF_182
from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.files import Content
from atrous.importers.kazuto1011 import convert

AGAINST = "its code at 4219467, a kept table"
CASES: dict[str, dict[str, Any]] = {
    "v1": {},
    "v2": {},
    "v2_msc": {},
    "v2_r101_msc": {},
    "v2s_msc": {"atrous_rates": (3, 6, 9, 12)},
    "v3": {},
    "v3_os16_msc": {},
    "v3_os8_msc": {"output_stride": 8},
    "v3plus": {},
    "v3plus_os16_msc": {},
    "v3plus_os8_msc": {"output_stride": 8},
}


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    """The weights of v2 without MSC."""
    return read_table("kazuto1011_v2")[0]


@pytest.mark.parametrize("name", CASES)
def test_logits_are_kazutos(name: str, prove: Any) -> None:
    """v2 and v3 on the grid of the output stride, where it gives them; v3+ at the picture's size."""
    found = table_difference(f"kazuto1011_{name}", on_grid="v3plus" not in name, **CASES[name])
    prove("kazuto1011", name, found, AGAINST)


@pytest.mark.parametrize(
    "wrong", [{"ceil_mode": False}, {"stride_on_first_1x1": False}, {"multi_grid": (1,)}, {"msc": False}]
)
def test_a_wrong_option_would_show(wrong: dict[str, Any]) -> None:
    weights, _, _ = read_table("kazuto1011_v3_os16_msc")
    right = import_checkpoint(weights)
    other = with_options(right, **wrong)
    x = draw_picture(64, 66)  # even: ceil_mode adds a row and a column
    with torch.inference_mode():
        assert difference(other(x), right(x)) > 0.01


def test_the_picture_is_bgr() -> None:
    """Red and blue change places in the first convolution; the mean is told in RGB."""
    weights, _, _ = read_table("kazuto1011_v2_msc")
    model = import_checkpoint(weights)
    theirs, ours = weights["base.layer1.conv1.conv.weight"], model.state_dict()["backbone.conv1.weight"]
    torch.testing.assert_close(ours[:, 0], theirs[:, 2])
    normalization = model.metadata.normalization
    grey = (
        torch.tensor([122.675, 116.669, 104.008]) / 255 - torch.tensor(normalization.mean)
    ) / torch.tensor(normalization.std)
    assert grey.abs().max() < 1e-4
    assert normalization.std[0] == pytest.approx(1 / 255)


def test_training_has_its_four_losses() -> None:
    """MSC gives the logits of every scale in training: 1, then 0.5 and 0.75, and their maximum."""
    model = import_checkpoint(read_table("kazuto1011_v3_os16_msc")[0]).train()
    assert set(model.scores(torch.randn(2, 3, 65, 65))) == {"out", "scale_0.5", "scale_0.75", "scale_1"}


@pytest.mark.parametrize(("classes", "names"), [(91, COCO.names), (182, COCO_STUFF_182.names), (21, None)])
def test_labels_by_the_number_of_classes(
    classes: int, names: tuple[str, ...] | None, plain: dict[str, Tensor]
) -> None:
    weights = dict(plain)
    for i in range(4):
        weights[f"aspp.c{i}.weight"] = torch.zeros(classes, 2048, 3, 3)
        weights[f"aspp.c{i}.bias"] = torch.zeros(classes)
    labels = convert(Content("f", "torch", weights)).labels
    assert labels is not None and len(labels) == classes
    assert labels.names == names if names else labels.names[1] == "aeroplane"


def test_a_file_of_its_training(tmp_path: Path) -> None:
    """A bare state dict of the wrapped model; unknown weights keep their own name in the report."""
    weights = dict(read_table("kazuto1011_v2_msc")[0])
    torch.save(weights | {"base.extra.weight": torch.zeros(1)}, tmp_path / "checkpoint_final.pth")
    model = import_checkpoint(tmp_path / "checkpoint_final.pth")
    assert model.report.source == "kazuto1011"
    assert model.report.unused == [("base.extra.weight", (1,))]
    assert not model.report.missing


def test_another_depth_is_a_clear_error(plain: dict[str, Tensor]) -> None:
    weights = {k: v for k, v in plain.items() if not k.startswith("layer4.block6")}
    with pytest.raises(InputError, match="5 blocks in layer4"):
        import_checkpoint(weights)
