"""The reader of TensorFlow's files, on files that TensorFlow itself wrote (tests/parity/make_tensorflow.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tensorflow_weights import SMALL, SMALL_FILES, draw_tensorflow

from atrous.errors import InputError
from atrous.importers.files import read

CHECKPOINT = SMALL_FILES / "model.ckpt"
DATA = "model.ckpt.data-00000-of-00001"
WEIGHTS = draw_tensorflow(SMALL | {"small/Momentum": (3,)})


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index", DATA, "."])
def test_a_checkpoint_is_read_to_the_last_bit(name: str) -> None:
    content = read(SMALL_FILES / name)
    assert content.kind == "tensorflow"
    assert content.tensors.keys() == {*WEIGHTS, "global_step"}
    assert all(torch.equal(content.tensors[key], value) for key, value in WEIGHTS.items())
    assert content.tensors["global_step"].item() == 30000


def test_a_frozen_graph_is_read_to_the_last_bit() -> None:
    tensors = read(SMALL_FILES / "frozen_inference_graph.pb").tensors
    assert all(torch.equal(tensors[key], WEIGHTS[key]) for key in SMALL)
    assert torch.equal(tensors["one_value"], torch.full((2, 3), 1.5))  # written as one number
    assert "strings" not in tensors


def test_a_checkpoint_without_its_numbers(tmp_path: Path) -> None:
    index = Path(shutil.copy(f"{CHECKPOINT}.index", tmp_path))
    with pytest.raises(InputError, match=f"{DATA}: missing; it belongs to model.ckpt.index"):
        read(tmp_path / "model.ckpt")
    (tmp_path / DATA).write_bytes((SMALL_FILES / DATA).read_bytes()[:100])
    with pytest.raises(InputError, match="lies outside the data files"):
        read(index)


def test_two_checkpoints_in_a_folder(tmp_path: Path) -> None:
    for step in (1, 2):
        shutil.copy(f"{CHECKPOINT}.index", tmp_path / f"model.ckpt-{step}.index")
    with pytest.raises(InputError, match="2 checkpoints: give one of them"):
        read(tmp_path)


def test_a_compressed_index_is_refused_in_words(tmp_path: Path) -> None:
    data = bytearray(Path(f"{CHECKPOINT}.index").read_bytes())
    for at in range(len(data) - 48):
        damaged = bytearray(data)
        damaged[at] = 1
        (tmp_path / "model.ckpt.index").write_bytes(damaged)
        try:
            read(tmp_path)
        except InputError as error:
            if "compressed" in str(error):
                return
    pytest.fail("no byte of the index tells its compression")


def test_another_file_of_that_name(tmp_path: Path) -> None:
    for name in ("faiss.index", "model.pb"):
        (tmp_path / name).write_bytes(b"\x12\x01a" * 30)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
