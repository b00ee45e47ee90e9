"""The forms in which training scripts save the same weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.importers import SOURCES, import_checkpoint
from atrous.importers.files import read

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2), "b.num": torch.tensor(3)}


def named(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in WEIGHTS.items()}


FORMS: dict[str, Callable[[], Any]] = {
    "plain": lambda: WEIGHTS,
    "DataParallel": lambda: named("module."),
    "torch.compile": lambda: named("_orig_mod."),
    "compiled DataParallel": lambda: named("_orig_mod.module."),
    "Lightning": lambda: {"state_dict": named("model."), "hyper_parameters": {"lr": 0.1}, "epoch": 3},
    "Lightning with a loss": lambda: {"state_dict": named("net.") | {"criterion.weight": torch.ones(3)}},
    "optimizer": lambda: {"model": WEIGHTS, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1)},
    "numpy's numbers": lambda: {"model_state": WEIGHTS, "best": np.float64(0.7), "all": np.zeros(3)},
    "average beside": lambda: {
        "state_dict": WEIGHTS,
        "state_dict_ema": {n: v + 9 for n, v in WEIGHTS.items()},
    },
    "average alone": lambda: {"model_ema": named("module.") | {"n_averaged": torch.tensor(3)}},
    "parameters": lambda: WEIGHTS | {"a.weight": nn.Parameter(WEIGHTS["a.weight"])},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_found(form: str, legacy: bool, tmp_path: Path) -> None:
    torch.save(FORMS[form](), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    found = read(tmp_path / "w.pth").tensors
    assert found.keys() - WEIGHTS.keys() <= {"criterion.weight", "n_averaged"}
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"refused: its pickle wants to run torch\.nn\.modules\.linear\.Linear"
    ):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_it_is_not_of_is_a_clear_error(source: str) -> None:
    with pytest.raises(InputError):
        import_checkpoint(WEIGHTS, source=source)
