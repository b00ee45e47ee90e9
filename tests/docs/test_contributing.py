"""The three recipes of CONTRIBUTING.md: their code is taken from the page, and works when it stands in the dicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import atrous
from atrous import importers, models
from atrous.backbones import BACKBONES, create_backbone
from atrous.importers import SOURCES
from atrous.models import MODELS, Paper

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def code(title: str) -> dict[str, Any]:
    """The names that the Python under a heading defines."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    found = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    names: dict[str, Any] = {"__name__": title}
    exec(compile(found[1], title, "exec"), names)
    return names


def test_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", code("A backbone in one file")["Tiny"])
    for stride, rate in ((32, 1), (16, 1), (8, 2)):
        backbone = create_backbone("tiny", output_stride=stride)
        features = backbone(torch.rand(2, 3, 65, 97))
        assert [f.shape[1] for f in features] == list(backbone.channels)
        assert [f.shape[-1] for f in features] == [-(-97 // s) for s in backbone.strides]
        assert backbone.output_stride == stride
        convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
        assert convolutions[-1].dilation[0] == rate  # first_dilation: the grid that its input is on
    model = atrous.create_model("deeplab_v3plus", "tiny", num_classes=3).eval()
    assert model(torch.rand(1, 3, 33, 47)).shape == (1, 3, 33, 47)


def test_a_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fcn = code("A paper in one file")["FCN"]
    monkeypatch.setitem(MODELS, "fcn", Paper(fcn, "vgg16", 32))
    model = atrous.create_model("fcn", "resnet18", num_classes=3).eval()
    x = torch.rand(1, 3, 50, 61)
    grid = model.scores(x)["out"]
    expected = torch.nn.functional.interpolate(grid, (50, 61), mode="bilinear", align_corners=False)
    assert torch.allclose(model(x), expected)
    assert grid.shape[-2:] == (2, 2)
    atrous.save(model, tmp_path / "fcn.safetensors")
    assert torch.equal(atrous.load(tmp_path / "fcn.safetensors")(x), model(x))


def test_an_importer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SOURCES, "theirs", code("An importer in one file")["SOURCE"])
    ours = models.create_model("pspnet", "resnet18", num_classes=4, aux=False).eval()
    renamed = {"backbone": "encoder", "pyramid": "ppm", "head": "last"}
    theirs: dict[str, Any] = {
        f"{renamed[name.split('.')[0]]}.{name.partition('.')[2]}": tensor
        for name, tensor in ours.state_dict().items()
    }
    torch.save({**theirs, "step": torch.tensor(7)}, tmp_path / "theirs.pth")
    model = importers.import_checkpoint(tmp_path / "theirs.pth")
    x = torch.rand(1, 3, 41, 33)
    assert torch.equal(model(x), ours(x))
    report: Any = model.report
    assert report.source == "theirs"
    assert report.left_out == ["step"]
    del theirs["last.4.bias"]
    with pytest.raises(atrous.InputError, match=r"1 weights are missing, first head\.4\.bias"):
        importers.import_checkpoint(theirs)
