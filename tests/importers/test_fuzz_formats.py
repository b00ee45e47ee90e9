"""500 damaged copies of a small file of every format: no crash, no hang, no memory that fills up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from fuzz import check
from safetensors.torch import save_file
from write_formats import write_caffemodel

TENSORFLOW = Path(__file__).parents[1] / "parity" / "tables" / "tensorflow_small"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


def weights() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    shapes = {"conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "bn1.running_mean": (4,), "fc.weight": (5, 4)}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def test_torch_zip(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "epoch": 3}, tmp_path / "net.pth")
    check(tmp_path / "net.pth")


def test_torch_legacy(tmp_path: Path) -> None:
    torch.save({"state_dict": weights()}, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    check(tmp_path / "net.pth")


def test_safetensors(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "net.safetensors", {"model": "x"})
    check(tmp_path / "net.safetensors")


@pytest.mark.parametrize("v1", [False, True])
def test_caffemodel(v1: bool, tmp_path: Path) -> None:
    layers = {"conv1": list(weights().values())[:2], "fc8": list(weights().values())[2:]}
    check(write_caffemodel(tmp_path / "net.caffemodel", layers, v1))


def test_tensorflow_checkpoint(tmp_path: Path) -> None:
    shutil.copy(TENSORFLOW / INDEX, tmp_path)
    check(tmp_path / INDEX, beside=(TENSORFLOW / DATA,))


def test_tensorflow_frozen_graph(tmp_path: Path) -> None:
    shutil.copy(TENSORFLOW / "frozen_inference_graph.pb", tmp_path)
    check(tmp_path / "frozen_inference_graph.pb")


@pytest.mark.parametrize("protocol", [2, 4])
def test_pdparams(protocol: int, tmp_path: Path) -> None:
    shutil.copy(TENSORFLOW.with_name("paddle_small") / f"protocol{protocol}.pdparams", tmp_path)
    check(tmp_path / f"protocol{protocol}.pdparams")
