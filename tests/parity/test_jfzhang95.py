"""jfzhang95/pytorch-deeplab-xception's logits, kept in tables by make_jfzhang95.py, and ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seeded import largest_difference, read_table, table_difference, with_options

from atrous.data.labels import VOC
from atrous.importers import import_checkpoint

PEER = "jfzhang95/pytorch-deeplab-xception 9135e104"
CASES = [("resnet", 16), ("resnet", 8), ("xception", 16), ("xception", 8), ("mobilenet", 16), ("mobilenet", 8),
         ("drn", 8)]  # fmt: skip
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("mobilenet_os8", {"dilate_from": "second"}),
    ("mobilenet_os8", {"pad_input": False}),
    ("mobilenet_os8", {"align_corners": False}),
    ("xception_os8", {"relu_shortcut": False}),
    ("xception_os8", {"exit_relu": "inside"}),
    ("xception_os8", {"dilate_strided": True}),
    ("xception_os8", {"relu_features": False}),
    ("xception_os8", {"eps": 1e-3}),
]


@pytest.mark.parametrize(("backbone", "output_stride"), CASES)
def test_logits_are_theirs(backbone: str, output_stride: int, prove: Any) -> None:
    found = table_difference(f"jfzhang95_{backbone}_os{output_stride}", output_stride=output_stride)
    prove("jfzhang95", f"DeepLab({backbone!r}, {output_stride})", found, PEER)


@pytest.mark.parametrize(("table", "option"), WRONG, ids=str)
def test_a_wrong_option_would_show(table: str, option: dict[str, Any]) -> None:
    weights, pairs, step = read_table(f"jfzhang95_{table}")
    ours = import_checkpoint(weights, output_stride=8)
    assert largest_difference(with_options(ours, **option), pairs[:1], step) > 0.01


def test_a_checkpoint_as_its_saver_writes_it(tmp_path: Any) -> None:
    """With epoch, optimizer and best_pred beside the weights, and the MobileNet's weights under two names."""
    import numpy as np

    weights, _, _ = read_table("jfzhang95_mobilenet_os16")
    prefix = "backbone.features."
    for name in [name for name in weights if name.startswith(prefix)]:
        index = name.removeprefix(prefix)
        part = "low_level_features" if int(index.split(".")[0]) < 4 else "high_level_features"
        weights[f"backbone.{part}.{index}"] = weights[name]
    path = tmp_path / "deeplab-mobilenet.pth.tar"
    content = {"epoch": 5, "state_dict": weights, "optimizer": {"state": {}}, "best_pred": np.float64(0.7)}
    torch.save(content, path)
    model: Any = import_checkpoint(path)
    assert (model.report.source, model.config.backbone) == ("jfzhang95", "mobilenet_v2")
    assert (model.config.output_stride, model.metadata.labels) == (16, VOC)
    assert model.report.unused == model.report.missing == []
    assert len(model.report.left_out) == len([name for name in weights if name.startswith(prefix)])
