"""Tables of what PaddleSeg says (make_paddle.py), and ours from the same weights; the reader on Paddle's own files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paddle_weights import CASES, SMALL, SMALL_FILES, XCEPTIONS, draw_paddle
from seeded import largest_difference, read_table

from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.files import read


def table_difference(name: str, **options: Any) -> float:
    weights, pairs, step = read_table(f"paddle_{name}", draw_paddle)
    model = import_checkpoint(weights, source="paddle", **CASES[name][4] | options)
    assert not model.report.unused
    return largest_difference(model, pairs, step)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_paddlesegs(name: str, prove: Any) -> None:
    model, depth, backbone, _, ours = CASES[name]
    encoder = f"Xception{depth}" if depth in XCEPTIONS else f"ResNet{depth}_vd"
    words = f"{model}, {encoder}, output stride {backbone['output_stride']}"
    words += ", align_corners" if ours.get("align_corners") else ""
    prove("paddle", words, table_difference(name), "a table of its own code's logits")


def test_a_wrong_multi_grid_would_show() -> None:
    assert table_difference("deeplabv3p", multi_grid=(1,)) > 0.01


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_of_paddle_is_read_to_the_last_bit(protocol: int) -> None:
    content = read(SMALL_FILES / f"protocol{protocol}.pdparams")
    expected = draw_paddle(SMALL)
    assert content.kind == "paddle" and content.tensors.keys() == expected.keys()
    assert all(torch.equal(content.tensors[key], value) for key, value in expected.items())


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pdparams"
    file.write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(InputError, match=r"refused: its pickle wants to run posix\.system; only tensors"):
        read(file)
    assert not Path("ran").exists()


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": "b"}, {"a": np.array(["text"])}], ids=str)
def test_pickles_of_something_else(value: Any, tmp_path: Path) -> None:
    file = tmp_path / "other.pdparams"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=r"other\.pdparams: (holds|not a readable)"):
        read(file)
