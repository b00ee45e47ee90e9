"""The logits of hszhao/semseg's PSPNet, from kept tables (make_semseg.py writes them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from seeded import largest_difference, read_table, table_difference, with_options
from torch import Tensor

from atrous.config import Normalization, Protocol
from atrous.importers import import_checkpoint
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.semseg import convert

AGAINST = "its code at 4f274c3, a kept table"
PPM = "semseg_pspnet50"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return read_table(PPM)[0]


@pytest.mark.parametrize("layers", [50, 101])
def test_logits_are_semsegs(layers: int, prove: Any) -> None:
    """At the picture's size, which is its own for 8 n + 1 pixels and zoom_factor 8."""
    prove("semseg", f"PSPNet {layers}", table_difference(f"semseg_pspnet{layers}"), AGAINST)


@pytest.mark.parametrize("wrong", [{"align_corners": False}, {"dilate_from": "second"}])
def test_a_wrong_option_would_show(wrong: dict[str, Any]) -> None:
    weights, pairs, step = read_table(PPM)
    right = import_checkpoint(weights)
    assert largest_difference(with_options(right, **wrong), pairs[:1], step) > 0.01


def with_classes(weights: dict[str, Tensor], classes: int) -> dict[str, Tensor]:
    weights = dict(weights)
    for head, channels in (("cls", 512), ("aux", 256)):
        weights |= {
            f"{head}.4.weight": torch.zeros(classes, channels, 1, 1),
            f"{head}.4.bias": torch.zeros(classes),
        }
    return weights


def test_a_checkpoint_of_its_training(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """{"epoch", "state_dict", "optimizer"} of a DataParallel model, with the auxiliary head of training."""
    parallel = {f"module.{name}": value for name, value in with_classes(weights, 150).items()}
    optimizer = {
        "state": {0: {"momentum_buffer": torch.zeros(2)}},
        "param_groups": [{"lr": 0.01, "params": [0]}],
    }
    path = tmp_path / "train_epoch_100.pth"
    torch.save({"epoch": 100, "state_dict": parallel, "optimizer": optimizer}, path)
    model = import_checkpoint(path)
    assert model.report.source == "semseg"
    assert not (model.report.unused or model.report.left_out or model.report.missing)
    assert model.config.options["aux"] is True
    assert model.metadata.labels == labels_for(150)
    assert model.metadata.normalization == Normalization()


@pytest.mark.parametrize(("classes", "window", "side"), [(150, 473, 512), (21, 473, 512), (19, 713, 2048)])
def test_its_protocol(weights: dict[str, Tensor], classes: int, window: int, side: int) -> None:
    found = convert(Content("f", "torch", with_classes(weights, classes)))
    assert found.labels == labels_for(classes)
    assert found.protocol == Protocol("slide", (window, window), side, flip=True)


def test_without_the_auxiliary_head(weights: dict[str, Tensor]) -> None:
    """Built for testing it has none; files of training have."""
    weights = {name: value for name, value in weights.items() if not name.startswith("aux.")}
    found = convert(Content("f", "torch", weights))
    assert found.config.options["aux"] is False and not found.renamed.unknown
