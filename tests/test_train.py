from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import atrous
from atrous import train as training
from atrous.checkpoint import metadata_of
from atrous.config import Recipe, read_recipe
from atrous.data import SCENES
from atrous.errors import InputError


def recipe(folder: Path, **settings: Any) -> Recipe:
    """A run of seconds on the drawn scenes."""
    small: dict[str, Any] = {
        "data_options": {"length": 8, "size": [64, 64]},
        "backbone": "mobilenet_v2",
        "model_options": {"width": 0.5},
        "crop_size": 64,
        "scale": (1.0, 1.0),
        "batch_size": 4,
        "iterations": 2,
        "workers": 0,
        "device": "cpu",
        "precision": "32-true",
        "out": str(folder),
    }
    return Recipe(**(small | settings))


def test_a_run_leaves_all_that_is_promised(tmp_path: Path) -> None:
    run = training.train(recipe(tmp_path / "run", epochs=2, iterations=None))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "best.safetensors",
        "last.safetensors",
        "log.csv",
        "recipe.yaml",
        "samples",
        "tensorboard",
    } <= names
    assert run.iteration == 4
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").read_text().splitlines()))
    assert [row["iteration"] for row in rows if row["miou"]] == ["2", "4"]
    model = atrous.load(tmp_path / "run" / "best.safetensors")
    metadata = metadata_of(model)
    assert metadata.labels == SCENES
    assert 0 < metadata.scores["miou"] == run.best_miou
    assert read_recipe(tmp_path / "run" / "recipe.yaml").crop_size == 64
    assert (tmp_path / "run" / "samples" / "000004.png").stat().st_size > 1000


def test_the_log_is_whole_when_a_run_ends(tmp_path: Path) -> None:
    """TensorBoard writes by a thread of its own, seconds later; here at once, after Ctrl-C too."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    threads = threading.active_count()
    run = training.train(recipe(tmp_path / "run", iterations=4))
    assert threading.active_count() == threads
    written = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    wanted = [(row["iteration"], row["miou"]) for row in run.history if "miou" in row]
    assert [(row.step, row.value) for row in written.Scalars("miou")] == [
        (step, pytest.approx(miou)) for step, miou in wanted
    ]
    assert len(wanted) == 2

    class Impatient:
        def started(self, run: training.Run) -> None: ...
        def evaluated(self, run: training.Run, metrics: object) -> None: ...
        def stepped(self, run: training.Run) -> None:
            training.log(run, loss=run.loss)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(tmp_path / "stopped"), Impatient())
    assert threading.active_count() == threads


def test_learning_learns_and_is_the_same_again(tmp_path: Path) -> None:
    losses = []
    for name in ("a", "b"):
        run = training.train(recipe(tmp_path / name, iterations=20, learning_rate=0.05, lr_groups="uniform"))
        losses.append([row["loss"] for row in run.history if "loss" in row])
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[0] == losses[1]


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_text("precious")
    with pytest.raises(InputError, match="already holds a run"):
        training.train(recipe(tmp_path))
    assert (tmp_path / "last.safetensors").read_text() == "precious"


def test_nothing_is_written_when_the_recipe_is_wrong(tmp_path: Path) -> None:
    for wrong in ({"model": "deeplab_v9"}, {"backbone": "resnet19"}, {"data": str(tmp_path / "gone")}):
        with pytest.raises(InputError):
            training.train(recipe(tmp_path / "run", **wrong))
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    class Impatient:
        def started(self, run: training.Run) -> None: ...
        def evaluated(self, run: training.Run, metrics: object) -> None: ...
        def stepped(self, run: training.Run) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(tmp_path / "run"), Impatient())
    model = atrous.load(tmp_path / "run" / "last.safetensors")
    assert model(torch.zeros(1, 3, 20, 20)).shape == (1, 9, 20, 20)
    assert metadata_of(model).labels == SCENES


def test_a_loss_that_explodes_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss became (nan|inf).*lower --learning_rate"):
        training.train(recipe(tmp_path / "run", learning_rate=1e20, iterations=10))


@pytest.mark.parametrize("model", ["deeplab_v1", "deeplab_v2", "pspnet", "deeplab_v3"])
def test_every_paper_takes_a_step(tmp_path: Path, model: str) -> None:
    run = training.set_up(
        recipe(tmp_path, model=model, backbone=None, model_options={}, iterations=1, batch_size=2)
    )
    before = [p.detach().clone() for p in run.network.parameters()]
    training.train_epoch(run)
    changed = [not torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    assert 0 < run.loss < 20


def test_head_layers_learn_faster_as_the_papers_say(tmp_path: Path) -> None:
    run = training.set_up(
        recipe(tmp_path, model="deeplab_v2", backbone="resnet18", model_options={}, iterations=100)
    )
    run.iteration = 50
    rate = training.learning_rate(run)
    assert rate == pytest.approx(2.5e-4 * 0.5**0.9)
    multiples = {round(group["lr"] / rate) for group in run.optimizer.param_groups}
    assert multiples == {1, 10, 20}


def test_frozen_batch_norm_stays_frozen(tmp_path: Path) -> None:
    run = training.set_up(recipe(tmp_path, freeze_bn=True, iterations=1))
    norms = [m for m in run.network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(m.running_mean.clone(), m.weight.detach().clone()) for m in norms]
    training.train_epoch(run)
    assert run.network.training
    for module, (mean, weight) in zip(norms, before, strict=True):
        assert torch.equal(module.running_mean, mean)
        assert torch.equal(module.weight, weight)


def test_class_weights_of_the_training_set(tmp_path: Path) -> None:
    run = training.set_up(recipe(tmp_path, class_weights="enet"))
    pixels = sum(
        torch.bincount(torch.from_numpy(run.train_data.mask(i)).flatten().long(), minlength=9)
        for i in range(8)
    )
    share = pixels / pixels.sum()
    expected = torch.where(pixels > 0, 1 / torch.log(1.02 + share), 0.0)
    torch.testing.assert_close(run.class_weights.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_class_weights_that_are_given(tmp_path: Path) -> None:
    given = tuple(1 + i / 8 for i in range(9))
    run = training.set_up(recipe(tmp_path, class_weights=given))
    assert run.class_weights.tolist() == pytest.approx(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 numbers; the data has 9 classes"),
        ({"class_weights": (0.0,) * 9}, "class_weights .*: at least one class must count"),
        ({"class_weights": "medain"}, "did you mean 'median'"),
        ({"loss": "lovas"}, "unknown loss 'lovas': did you mean 'lovasz'"),
        ({"loss": {"ce": 1, "dise": 1}}, "did you mean 'dice'"),
        ({"ohem_threshold": 0.0}, "ohem_threshold 0.0 must be a number, at most 1 and above 0"),
        ({"ohem_min_kept": -1}, "ohem_min_kept -1 must be"),
        ({"focal_gamma": -2}, "focal_gamma -2 must be"),
        ({"protocol": {"mode": "slide"}}, "mode 'slide' needs a size"),
        ({"protocol": {"sclaes": [1]}}, "protocol: unknown key 'sclaes': did you mean 'scales'"),
    ],
)
def test_an_objective_that_cannot_be(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        training.train(recipe(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_the_loss_of_a_run_is_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loss that is logged, from the scores and masks that the run saw."""
    from atrous import losses

    seen = []
    plain = losses.segmentation_loss

    def spy(scores: dict[str, torch.Tensor], labels: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(({k: v.detach().clone() for k, v in scores.items()}, labels))
        return plain(scores, labels, **options)

    monkeypatch.setattr(losses, "segmentation_loss", spy)
    settings: dict[str, Any] = {"loss": {"focal": 1, "ohem": 0.5, "lovasz": 0.25}, "class_weights": "inverse"}
    run = training.set_up(
        recipe(tmp_path, **settings, focal_gamma=3.0, ohem_threshold=0.1, ohem_min_kept=50, iterations=1)
    )
    training.train_epoch(run)
    (scores, labels), weights = seen[0], run.class_weights
    logits = torch.nn.functional.interpolate(scores["out"], labels.shape[-2:], mode="bilinear")
    expected = (
        losses.focal(logits, labels, weights, gamma=3.0)
        + 0.5 * losses.ohem(logits, labels, weights, threshold=0.1, min_kept=50)
        + 0.25 * losses.lovasz_softmax(logits, labels, weights)
    )
    assert run.loss == pytest.approx(expected.item(), rel=1e-5)


def test_checkpoints_carry_the_protocol_that_the_run_does_without(tmp_path: Path) -> None:
    protocol = {"scales": [0.5, 1.0], "flip": True, "crf": {"bi_w": 4.0}}
    run = training.train(recipe(tmp_path / "a", protocol=protocol))
    plain = training.train(recipe(tmp_path / "b"))
    assert run.best_miou == plain.best_miou  # measured at scale 1, without flip and CRF
    saved = metadata_of(atrous.load(tmp_path / "a" / "best.safetensors")).protocol
    assert (saved.scales, saved.flip, saved.crf) == ((0.5, 1.0), True, {"bi_w": 4.0})
