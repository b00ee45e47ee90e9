"""The bytes of docs/scaling.md are those of the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from atrous.models import create_model

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (deeplab\w+|pspnet) (\w+)( separable)? \|(.+)\|$", PAGE, re.MULTILINE)


def test_the_table_is_found() -> None:
    assert len(ROWS) == 6


@pytest.mark.parametrize(("name", "backbone", "separable", "figures"), ROWS)
def test_bytes_of_a_step(name: str, backbone: str, separable: str, figures: str) -> None:
    with torch.device("meta"):
        model = create_model(name, backbone, **({"separable": True} if separable else {}))
    parameters = sum(p.numel() for p in model.parameters())
    norms = [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    exchanged = sum(4 * (4 * channels + 2) for channels in norms)
    expected = [f"{parameters / 1e6:.1f}", f"{4 * parameters / 1e6:.0f}", str(len(norms)), str(sum(norms)),
                f"{exchanged / 1e6:.2f}"]  # fmt: skip
    assert [figure.strip() for figure in figures.split("|")] == expected
