"""What goes wrong in the middle of a run: one clear line, and the run's last good state is kept."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous import checkpoint, evaluation
from atrous import train as training
from atrous.checkpoint import metadata_of
from atrous.cli import main
from atrous.config import Recipe
from atrous.data import SCENES, open_dataset
from atrous.errors import InputError
from atrous.metrics import ConfusionMatrix
from atrous.predict import Predictor
from atrous.terminal import TrainingDisplay
from atrous.training import state
from atrous.training.batches import Batch
from atrous.training.run import Run


def recipe(folder: Path, **settings: Any) -> Recipe:
    small: dict[str, Any] = {
        "data_options": {"length": 8, "size": [32, 32]},
        "backbone": "mobilenet_v2",
        "model_options": {"width": 0.25, "separable": True},
        "crop_size": 32,
        "batch_size": 4,
        "iterations": 4,
        "workers": 0,
        "device": "cpu",
        "precision": "32-true",
        "max_val": 2,
        "out": str(folder),
    }
    return Recipe(**(small | settings))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures with masks, 0.jpg to 9.jpg."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(10):
        mask = np.zeros((40, 40), np.uint8)
        mask[:, : 5 + 3 * i] = 1
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{i}.jpg")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{i}.png")
    return tmp_path / "data"


class After:
    """Does something after the first step."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def started(self, run: Run) -> None: ...
    def evaluated(self, run: Run, metrics: object) -> None: ...
    def stepped(self, run: Run) -> None:
        if run.iteration == 1:
            self.act(run)


def test_a_loss_that_is_no_number_names_its_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"iteration (\d+).*scene_train_0000\d, .*not_finite\.json"):
        training.train(recipe(tmp_path / "run", learning_rate=1e20, iterations=10))
    report = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    assert len(report["pictures"]) == 4
    assert set(report["pictures"]) <= {f"scene_train_{i:05d}" for i in range(8)}
    kept = state.read_state(tmp_path / "run")
    if kept:  # of an evaluation before it
        assert all(value.isfinite().all() for value in kept["network"].values())


def test_broken_weights_overwrite_nothing(tmp_path: Path) -> None:
    """The loss of a step can be finite, and the weights after it not."""
    run = training.set_up(recipe(tmp_path))
    state.keep(run)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    run.iteration = 7
    with torch.no_grad():
        run.network.classifier.bias[3] = torch.inf
    for act in (state.keep, training.evaluate_run):
        with pytest.raises(InputError, match=r"classifier.bias is no longer finite after iteration 7"):
            act(run)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_only_void_pixels_teach_nothing(tmp_path: Path) -> None:
    run = training.set_up(recipe(tmp_path, weight_decay=0.0, momentum=0.0))
    run.network.train()
    before = [value.detach().clone() for value in run.network.parameters()]
    void = torch.full((4, 32, 32), 255)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    training.learning_rate(run)
    assert training.take_step(run, [Batch(images, void, ["a"] * 4, [])]) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))


def test_one_picture_makes_a_batch(tmp_path: Path) -> None:
    """Data smaller than a batch goes round; and in a batch of one, image pooling leaves batch norm a single value."""
    run = training.train(recipe(tmp_path / "few", iterations=1, data_options={"length": 1, "size": [32, 32]}))
    assert 0 < run.loss < 20
    run = training.train(recipe(tmp_path / "one", iterations=1, batch_size=1))
    assert 0 < run.loss < 20


def test_a_collapsed_prediction_is_warned_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    confusion = ConfusionMatrix(9)
    truth = np.arange(9).reshape(3, 3)
    confusion.update(truth, np.full((3, 3), 4))
    warning = evaluation.collapsed(confusion.metrics(SCENES.names))
    assert warning
    assert "every pixel is predicted as 'tree', though the truth has 9 classes" in warning
    confusion.update(truth, np.where(truth == 0, 3, 4))
    assert evaluation.collapsed(confusion.metrics(SCENES.names)) is None
    plain = ConfusionMatrix(9)
    plain.update(np.zeros((3, 3), int), np.zeros((3, 3), int))
    assert evaluation.collapsed(plain.metrics(SCENES.names)) is None

    model = atrous.create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=9, width=0.25)
    with torch.no_grad():
        model.classifier.bias[2] = 1e4
    atrous.save(model, tmp_path / "road.safetensors", checkpoint.Metadata(SCENES))
    main(["evaluate", str(tmp_path / "road.safetensors"), "scenes", "--data_options.length", "2"])
    assert "every pixel is predicted as 'road'" in capsys.readouterr().out


@pytest.mark.parametrize("writer", ["state", "checkpoint"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """The state of the first evaluation stays, whole; with room again the run goes on from it."""
    save_file, save = checkpoint.save_file, torch.save

    def full(content: Any, to: Any, *rest: Any) -> None:
        if writer == "state":
            to.write(b"half a state")
        else:
            Path(to).write_bytes(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(run: Run) -> None:
        state.keep(run)
        monkeypatch.setattr(torch, "save", full) if writer == "state" else None
        monkeypatch.setattr(checkpoint, "save_file", full) if writer == "checkpoint" else None

    name = "state.pt" if writer == "state" else "last.safetensors"
    with pytest.raises(InputError, match=rf"{name}: could not be written .*No space left.*--resume"):
        training.train(recipe(tmp_path / "run"), After(fill))
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    kept = state.read_state(tmp_path / "run")
    assert kept
    assert kept["progress"]["iteration"] == 1
    assert atrous.load(tmp_path / "run" / "last.safetensors")
    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    assert training.resume(tmp_path / "run").iteration == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes(pictures: Path, tmp_path: Path, workers: int) -> None:
    def vanish(run: Run) -> None:
        for pair in run.train_data.pairs[:3]:
            pair.image.rename(pair.image.with_suffix(".away"))

    settings: dict[str, Any] = {
        "data": str(pictures),
        "data_options": {},
        "workers": workers,
        "iterations": 12,
    }
    with pytest.raises(InputError, match=r"images/\d\.jpg: .*--skip_broken.*atrous train --resume") as error:
        training.train(recipe(tmp_path / "run", **settings), After(vanish))
    assert len(str(error.value).splitlines()) == 1
    kept = state.read_state(tmp_path / "run")
    assert kept
    assert 1 <= kept["progress"]["iteration"] < 12
    for path in (pictures / "images").glob("*.away"):
        path.rename(path.with_suffix(".jpg"))
    assert training.resume(tmp_path / "run").iteration == 12


def test_skip_broken_goes_on_and_lists_them(pictures: Path, tmp_path: Path) -> None:
    def damage(run: Run) -> None:
        for pair in (*run.train_data.pairs[:2], *run.val_data.pairs[:1]):
            pair.image.write_bytes(pair.image.read_bytes()[:200])

    data_options = {"val_fraction": 0.3}
    settings: dict[str, Any] = {"data": str(pictures), "data_options": data_options, "iterations": 6}
    run = training.train(recipe(tmp_path / "run", skip_broken=True, **settings), After(damage))
    assert run.iteration == 6
    listed = (tmp_path / "run" / "broken.txt").read_text().splitlines()
    damaged = [path for path in (pictures / "images").iterdir() if path.stat().st_size == 200]
    assert len(listed) == len(damaged) == 3
    assert {line.split(":")[0] for line in listed} == {str(path) for path in damaged}
    assert run.metadata.scores["pictures"] == 1


@pytest.mark.parametrize("broken", [False, True])
def test_no_score_where_nothing_was_measured(pictures: Path, tmp_path: Path, broken: bool) -> None:
    """The only val picture is void throughout, or cannot be read: the run stops there, and goes on from there."""
    settings: dict[str, Any] = {"data": str(pictures), "data_options": {}, "iterations": 6}
    (pair,) = open_dataset(pictures, "val").pairs
    file = pair.image if broken else pair.mask
    whole = file.read_bytes()

    def spoil(run: Run) -> None:
        if broken:
            file.write_bytes(whole[:200])
        else:
            Image.fromarray(np.full((40, 40), 255, np.uint8)).save(file)

    why = f"1 cannot be read, the first: {file}" if broken else "the masks are void throughout"
    with pytest.raises(InputError, match=r"nothing to measure: no pixel of the val .*--resume") as error:
        training.train(recipe(tmp_path / "run", skip_broken=broken, **settings), After(spoil))
    assert why in str(error.value) and "\n" not in str(error.value)
    kept = atrous.load(tmp_path / "run" / "last.safetensors")
    assert not metadata_of(kept).scores and not (tmp_path / "run" / "best.safetensors").exists()
    file.write_bytes(whole)
    run = training.resume(tmp_path / "run")
    assert run.iteration == 6 and run.metadata.scores["pictures"] == 1


def test_evaluate_has_no_score_for_nothing(
    scene_checkpoint: Path, pictures: Path, refused: Callable[..., str]
) -> None:
    (pictures / "classes.txt").write_text("".join(f"{name}\n" for name in SCENES.names))
    for path in (pictures / "masks").iterdir():
        if path.stem != "3":
            Image.fromarray(np.full((40, 40), 255, np.uint8)).save(path)
    words = [
        "evaluate",
        str(scene_checkpoint),
        str(pictures),
        "--json",
        str(pictures / "scores.json"),
        "--split",
    ]
    error = refused([*words, "val"])
    assert (
        "nothing to measure: no pixel of the val pictures has a label (1 looked at; the masks are void"
        in error
    )
    assert not (pictures / "scores.json").exists()
    main([*words, "train"])  # in which one picture has labels
    assert json.loads((pictures / "scores.json").read_text())["pictures"] == 9
    # and where that one is another process's, this one says nothing, as it has the sum
    predictor, data = Predictor(scene_checkpoint), open_dataset(pictures, "train")
    mine = [data.name(index) for index in range(len(data))].index("3") % 2
    evaluation.evaluate(predictor, data, shard=(1 - mine, 2), add_up=lambda counts: counts + 1)


def test_a_loading_process_that_dies(pictures: Path, tmp_path: Path) -> None:
    def kill(run: Run) -> None:
        import multiprocessing

        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)

    settings: dict[str, Any] = {"data": str(pictures), "data_options": {}, "workers": 1, "iterations": 12}
    with pytest.raises(InputError, match=r"a process that loads pictures died .*lower --workers.*--resume"):
        training.train(recipe(tmp_path / "run", **settings), After(kill))
    kept = state.read_state(tmp_path / "run")
    assert kept
    assert kept["progress"]["iteration"] >= 1


def test_numbers_that_can_hardly_be_classes_are_told_at_the_start(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (pictures / "masks").iterdir():
        with Image.open(path) as picture:
            mask = np.asarray(picture) * 38
        Image.fromarray(mask).save(path)
    settings: dict[str, Any] = {"data": str(pictures), "data_options": {}, "iterations": 1}
    with TrainingDisplay() as display:
        training.train(recipe(tmp_path / "run", **settings), display)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("warning: only 2 of the numbers 0 to 38 are in the masks") == 1
    assert "--data_options.values '{38: 1}'" in said


def test_a_measurement_before_the_first_row_of_the_log_has_no_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    confusion = ConfusionMatrix(9)
    confusion.update(np.arange(9), np.arange(9))
    for loss, said in (
        (float("nan"), "3 s   val mIoU 1.0000"),
        (0.25, "3 s   loss 0.2500   val mIoU 1.0000"),
    ):
        run: Any = SimpleNamespace(iteration=4, iterations=8, epoch=1, seconds=3.0, loss=loss, best_miou=1.0)
        TrainingDisplay().evaluated(run, confusion.metrics(SCENES.names))
        assert said in capsys.readouterr().out
