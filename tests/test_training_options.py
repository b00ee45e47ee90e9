"""The trainer's options, each against its closed form."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from atrous import train as training
from atrous.batch_norm import Frozen, SyncBatchNorm2d, freeze, synchronise
from atrous.config import Recipe
from atrous.data import open_dataset, train_transform
from atrous.errors import InputError
from atrous.training.batches import (
    Batches,
    Drawn,
    class_pixels,
    collate,
    rare_class_weights,
    repeat_factors,
    steps,
)
from atrous.training.ema import MovingAverage


def recipe(folder: Path, **settings: Any) -> Recipe:
    """Crops of drawn scenes; every pixel is labelled."""
    small: dict[str, Any] = {
        "data_options": {"length": 8, "size": [48, 48]},
        "model": "deeplab_v3plus",
        "backbone": "mobilenet_v2",
        "model_options": {"width": 0.25, "separable": True},
        "crop_size": 32,
        "scale": (1.0, 1.0),
        "batch_size": 4,
        "iterations": 1,
        "workers": 0,
        "device": "cpu",
        "precision": "32-true",
        "out": str(folder),
    }
    return Recipe(**(small | settings))


def without_chance(run: training.Run) -> training.Run:
    """No dropout, and batch norms that are in eval mode: pictures of a batch do not meet."""
    freeze(run.network, affine=False)
    for module in run.network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return run


def weights(run: training.Run) -> list[torch.Tensor]:
    return [value.detach().clone() for value in run.network.parameters()]


def test_two_batches_of_four_are_one_of_eight(tmp_path: Path) -> None:
    found = []
    for size, accumulate in ((8, 1), (4, 2)):
        settings = {"batch_size": size, "accumulate": accumulate, "iterations": 2, "learning_rate": 0.1}
        run = without_chance(training.set_up(recipe(tmp_path / str(size), **settings)))
        assert len(run.batches) == accumulate
        before = weights(run)
        training.train_epoch(run)
        training.train_epoch(run)
        assert run.iteration == 2
        found.append((run.loss, weights(run)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    moved = max((a - b).abs().max().item() for a, b in zip(before, found[0][1], strict=True))
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * moved)


def test_clipping_scales_the_step_to_the_norm(tmp_path: Path) -> None:
    """Plain SGD moves by rate * gradient: with clipping the whole step is rate * norm long."""
    lengths = {}
    for norm in (None, 0.01, 1e6):
        settings: dict[str, Any] = {
            "clip_gradients": norm,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "learning_rate": 0.5,
            "lr_groups": "uniform",
        }
        run = without_chance(training.set_up(recipe(tmp_path / str(norm), **settings)))
        before = weights(run)
        training.train_epoch(run)
        steps = [(a - b).double().pow(2).sum() for a, b in zip(before, weights(run), strict=True)]
        lengths[norm] = torch.stack(steps).sum().sqrt().item()
    assert lengths[None] > 0.5 * 0.02
    assert lengths[0.01] == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert lengths[1e6] == lengths[None]


def test_moving_average_is_its_formula() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    values = torch.tensor([2.0, -1.0, 4.0, 0.5])
    with torch.no_grad():
        network[0].weight.fill_(10.0)
    average, expected = MovingAverage(network, 0.2), 10.0
    for t, value in enumerate(values.tolist(), 1):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].running_mean.fill_(value)
            network[1].num_batches_tracked.fill_(t)
        average.update(network)
        decay = min(0.2, (1 + t) / (10 + t))  # 2/11, then 0.2
        expected = decay * expected + (1 - decay) * value
        assert average.network[0].weight.item() == pytest.approx(expected)
        assert average.network[1].num_batches_tracked.item() == t
    assert average.network[1].running_mean.item() != network[1].running_mean.item()


def test_the_average_is_what_is_measured_and_saved(tmp_path: Path) -> None:
    import atrous

    run = training.train(recipe(tmp_path / "run", ema=0.9, iterations=3, max_val=1))
    saved = atrous.load(tmp_path / "run" / "last.safetensors").state_dict()
    for name, value in run.average.network.state_dict().items():
        assert torch.equal(saved[name], value), name
    assert not torch.equal(saved["classifier.weight"], run.network.state_dict()["classifier.weight"])


@pytest.mark.parametrize("affine", [True, False])
def test_frozen_statistics_survive_train(tmp_path: Path, affine: bool) -> None:
    run = training.set_up(recipe(tmp_path, freeze_bn=True, freeze_bn_affine=affine, learning_rate=0.1))
    norms = [module for module in run.network.modules() if isinstance(module, nn.BatchNorm2d)]
    run.network.train(False).train()
    assert all(isinstance(module, Frozen) and not module.training for module in norms)
    before = [(m.running_mean.clone(), m.running_var.clone(), m.weight.detach().clone()) for m in norms]
    training.train_epoch(run)
    assert all(torch.equal(m.running_mean, mean) for m, (mean, _, _) in zip(norms, before, strict=True))
    assert all(torch.equal(m.running_var, var) for m, (_, var, _) in zip(norms, before, strict=True))
    same = [torch.equal(m.weight, weight) for m, (_, _, weight) in zip(norms, before, strict=True)]
    assert all(same) if affine else not any(same)


def test_sync_batch_norm_falls_back() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert type(synchronise(network, 1, "cuda")[1]) is nn.BatchNorm2d
    assert type(synchronise(network, 1, "cpu")[1]) is nn.BatchNorm2d
    assert type(synchronise(copy.deepcopy(network), 2, "cuda")[1]) is nn.SyncBatchNorm
    assert type(synchronise(network, 2, "cpu")[1]) is SyncBatchNorm2d


def test_sync_batch_norm_of_one_process_is_batch_norm(tmp_path: Path) -> None:
    """Outputs, gradients and running statistics are those of torch's, here in a group of one."""
    plain = nn.BatchNorm2d(5, momentum=0.3)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    (synced,) = synchronise(nn.Sequential(copy.deepcopy(plain)), 2, "cpu")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = torch.randn(3, 5, 7, 6) * 2 + 1
        found = []
        for module in (plain, synced):
            given = x.clone().requires_grad_()
            out = module(given)
            (out * torch.linspace(-1, 1, x.numel()).view_as(x)).sum().backward()
            found.append([out, given.grad, module.weight.grad, *module.state_dict().values()])
    finally:
        torch.distributed.destroy_process_group()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_a_compiled_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def eagerly(self: nn.Module) -> None:
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    found = []
    for compile in (False, True):
        settings: dict[str, Any] = {"model": "deeplab_v2", "backbone": "resnet18", "model_options": {}}
        run = training.set_up(recipe(tmp_path / str(compile), compile=compile, **settings))
        training.train_epoch(run)
        found.append(run.loss)
    assert len(compiled) >= 2
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_chances_of_rare_classes() -> None:
    """3 pictures of road alone, 1 of road and car: a car half of the time, a road of any 4 in the other half."""
    pixels = np.array([[9, 0, 0], [5, 0, 0], [7, 0, 0], [3, 1, 0]])
    chances = rare_class_weights(pixels)
    assert chances.tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 8, 5 / 8])
    batches = Batches(4, 2000, seed=0, weights=chances)
    count = Counter(draw.picture for draw in batches.draws())
    assert count[3] / 2000 == pytest.approx(5 / 8, abs=0.03)


def test_repeat_factors() -> None:
    """A class on 1 of 40 pictures, share 0.1: its picture counts sqrt(0.1 / 0.025) = 2 times; the rest once."""
    pixels = np.zeros((40, 3), np.int64)
    pixels[:, 0], pixels[7, 1] = 5, 3
    factors = repeat_factors(pixels, share=0.1)
    assert factors[7] == pytest.approx(2)
    assert np.delete(factors, 7).tolist() == [1] * 39


def test_rare_class_sampling_counts_the_masks(tmp_path: Path) -> None:
    run = training.set_up(recipe(tmp_path, sampling="rare", data_options={"length": 12, "size": [32, 32]}))
    pixels, labelled = class_pixels(run.train_data)
    assert labelled.tolist() == [32 * 32] * 12
    for index in (0, 11):
        expected = np.bincount(run.train_data.mask(index).ravel(), minlength=9)
        assert pixels[index].tolist() == expected.tolist()
    assert run.batches.weights == pytest.approx(rare_class_weights(pixels))


def test_every_picture_once_in_another_order() -> None:
    batches = Batches(10, 3, seed=1)
    orders = []
    for epoch in range(2):
        batches.begin(epoch)
        drawn = [draw for batch in batches for draw in batch]
        assert len({draw.picture for draw in drawn}) == 9  # three batches of three; one picture is left out
        assert len({draw.seed for draw in drawn}) == 9
        orders.append(drawn)
        batches.begin(epoch, first=2)
        assert [draw for batch in batches for draw in batch] == drawn[6:]
    assert orders[0] != orders[1]


def test_processes_share_each_batch() -> None:
    whole = list(Batches(9, 4, seed=1))
    parts = [list(Batches(9, 4, seed=1, process=i, processes=2)) for i in range(2)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(one + two)
        assert len(one) == len(two) == 2
    with pytest.raises(InputError, match="give a multiple of 2"):
        Batches(9, 3, seed=1, processes=2)


def test_too_few_pictures_go_round() -> None:
    (batch,) = Batches(3, 8, seed=0)
    assert sorted(Counter(draw.picture for draw in batch).values()) == [2, 3, 3]
    assert len({draw.seed for draw in batch}) == 8  # each augmented anew


def test_augmentation_follows_from_the_draw_alone() -> None:
    data = open_dataset("scenes", "train", length=3, size=[40, 40])
    data.transform = train_transform(24, (0.5, 2.0), jitter=0.3, rotation=10.0, blur=True)
    draws = Batches(3, 3, seed=0).draws()
    first = collate([Drawn(data)[draw] for draw in draws])
    before = torch.get_rng_state()
    torch.rand(7)
    second = collate([Drawn(data)[draw] for draw in reversed(draws)])
    assert torch.equal(first.images, second.images.flip(0))
    assert torch.equal(first.masks, second.masks.flip(0))
    torch.set_rng_state(before)


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("64-true", torch.float64)],
)
def test_the_network_computes_in_the_precision_that_was_asked_for(
    tmp_path: Path, precision: str, kind: torch.dtype
) -> None:
    run = training.set_up(recipe(tmp_path, precision=precision))
    seen: set[torch.dtype] = set()
    for module in run.network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    training.take_step(run, next(steps(run.loader)))
    assert seen == {kind}
    assert {p.dtype for p in run.network.parameters()} == {
        torch.float64 if kind == torch.float64 else torch.float32
    }
    assert run.network.metadata.labels.names  # the network is found where it was
