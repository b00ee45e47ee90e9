"""The bytes of docs/scaling.md are those of the models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from atrous import cli
from atrous.models import create_model

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (deeplab\w+|pspnet) (\w+)( separable)? \|(.+)\|$", PAGE, re.MULTILINE)


def test_the_command_inside_a_command_names_the_program() -> None:
    """What `fabric run` is to start."""
    (code,) = re.findall(r"\$\(python -c '(.+?)'\)", PAGE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(Path(cli.__file__).with_name("__main__.py"))


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
