"""VainF/DeepLabV3Plus-Pytorch's logits, kept in tables by make_vainf.py, and ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from make_vainf import CASES, table
from seeded import largest_difference, read_table, table_difference, with_options

from atrous.data.labels import VOC
from atrous.errors import InputError
from atrous.importers import import_checkpoint

PEER = "VainF/DeepLabV3Plus-Pytorch 4e1087de"
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("deeplabv3plus_mobilenet_os8", {"pad_stem": True}),
    ("deeplabv3plus_mobilenet_os8", {"pad_input": False}),
    ("deeplabv3plus_mobilenet_os8", {"dilate_from": "next"}),
    ("deeplabv3plus_xception_os8", {"dilate_from": "second"}),
    ("deeplabv3plus_xception_os8", {"pad_exit": None}),
    ("deeplabv3plus_resnet50_os8", {"dilate_from": "first"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: table(*case))
def test_logits_are_theirs(case: tuple[str, int, bool], prove: Any) -> None:
    name, output_stride, separable = case
    found = table_difference(table(*case), output_stride=output_stride)
    words = ", separable" if separable else ""
    prove("vainf", f"{name}, output stride {output_stride}{words}", found, PEER)


@pytest.mark.parametrize(("name", "option"), WRONG, ids=str)
def test_a_wrong_option_would_show(name: str, option: dict[str, Any]) -> None:
    weights, pairs, step = read_table(f"vainf_{name}")
    ours = import_checkpoint(weights, output_stride=8)
    assert largest_difference(with_options(ours, **option), pairs[:1], step) > 0.01


def test_a_checkpoint_as_its_main_writes_it(tmp_path: Any) -> None:
    weights, _, _ = read_table("vainf_deeplabv3plus_mobilenet_os16")
    path = tmp_path / "best_deeplabv3plus_mobilenet_voc_os16.pth"
    rest = {"cur_itrs": 30000, "optimizer_state": {}, "scheduler_state": {}, "best_score": np.float64(0.7)}
    torch.save({"model_state": weights} | rest, path)
    model: Any = import_checkpoint(path)
    assert (model.report.source, model.config.backbone) == ("vainf", "mobilenet_v2")
    assert (model.config.output_stride, model.metadata.labels) == (16, VOC)
    assert model.report.unused == model.report.missing == model.report.left_out == []


def test_a_separable_v3_is_refused_with_its_head() -> None:
    """Not with the advice to leave the trained head out."""
    weights = read_table("vainf_deeplabv3_mobilenet_os16")[0]
    body = {"classifier.classifier.0.convs.1.0.body.0.weight": torch.zeros(320, 1, 3, 3)}
    with pytest.raises(InputError, match="its DeepLab v3 with --separable_conv is not known here"):
        import_checkpoint(weights | body)


def test_an_hrnet_is_recognised_and_refused() -> None:
    weights, _, _ = read_table("vainf_deeplabv3plus_mobilenet_os16")
    head = {name: value for name, value in weights.items() if name.startswith("classifier.")}
    with pytest.raises(InputError, match="its backbone is an HRNet, which is not here"):
        import_checkpoint(head | {"backbone.transition1.0.0.weight": torch.zeros(1)})


def test_a_picture_that_its_xception_swallows_is_a_clear_error() -> None:
    weights, _, _ = read_table("vainf_deeplabv3plus_xception_os16")
    model = import_checkpoint(weights)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 71, 80)).shape == (1, 21, 71, 80)
        with pytest.raises(InputError, match=r"70x80 is too small .* need 71 pixels"):
            model(torch.zeros(1, 3, 70, 80))
