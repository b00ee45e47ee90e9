"""Every loss against a slow reference written here with plain loops, and against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from atrous import losses
from atrous.errors import InputError

VOID = 255
WEIGHTS = (0.5, 1.0, 2.0, 3.0)


def case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, 5, 7) and labels with void; class 3 does not occur."""
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(2, 4, 5, 7, generator=generator)).to(dtype)
    labels = torch.randint(0, 3, (2, 5, 7), generator=generator)
    labels[0, :2] = VOID
    labels[1, 3, 4] = VOID
    return logits, labels


def pixels(logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[np.ndarray, int]]:
    """Probabilities and class of each labelled pixel, by hand."""
    found = []
    for n, y, x in np.ndindex(*labels.shape):
        truth = int(labels[n, y, x])
        if truth != VOID:
            powers = np.exp(logits[n, :, y, x].numpy().astype(np.float64))
            found.append((powers / powers.sum(), truth))
    return found


def weighted_mean(values: list[float], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def reference_ce(found: list, weights: tuple, **_: Any) -> float:
    return weighted_mean([-math.log(p[t]) for p, t in found], [weights[t] for _, t in found])


def reference_focal(found: list, weights: tuple, gamma: float = 2.0) -> float:
    values = [-((1 - p[t]) ** gamma) * math.log(p[t]) for p, t in found]
    return weighted_mean(values, [weights[t] for _, t in found])


def reference_ohem(found: list, weights: tuple, threshold: float = 0.7, min_kept: float = 1 / 16) -> float:
    ranked = sorted(found, key=lambda pixel: pixel[0][pixel[1]])
    least = round(min_kept * len(found)) if min_kept < 1 else round(min_kept * 2)  # two pictures
    hard = [(p, t) for i, (p, t) in enumerate(ranked) if p[t] < threshold or i < least]
    return reference_ce(hard, weights)


def reference_dice(found: list, weights: tuple) -> float:
    values, importance = [], []
    for c in sorted({t for _, t in found}):
        both = sum(p[c] for p, t in found if t == c)
        either = sum(p[c] for p, _ in found) + sum(t == c for _, t in found)
        values.append(1 - 2 * both / either)
        importance.append(weights[c])
    return weighted_mean(values, importance)


def reference_lovasz(found: list, weights: tuple) -> float:
    """The Lovasz extension by its definition: a sum over level sets of the set function 1 - IoU."""

    def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
        return 1 - len(truth - wrong) / len(truth | wrong)

    values, importance = [], []
    for c in sorted({t for _, t in found}):
        truth = {i for i, (_, t) in enumerate(found) if t == c}
        errors = {i: 1 - p[c] if i in truth else p[c] for i, (p, _) in enumerate(found)}
        levels = [0.0, *sorted(errors.values())]
        total = 0.0
        for low, high in itertools.pairwise(levels):
            total += (high - low) * jaccard_loss({i for i, e in errors.items() if e >= high}, truth)
        values.append(total)
        importance.append(weights[c])
    return weighted_mean(values, importance)


REFERENCES: dict[str, Callable[..., float]] = {
    "ce": reference_ce,
    "ohem": reference_ohem,
    "focal": reference_focal,
    "dice": reference_dice,
    "lovasz": reference_lovasz,
}
CASES: list[tuple[str, dict[str, float]]] = [
    ("ce", {}),
    ("ohem", {}),
    ("ohem", {"threshold": 0.3}),
    ("ohem", {"threshold": 1e-6, "min_kept": 0.4}),  # the minimum decides
    ("ohem", {"threshold": 0.01, "min_kept": 11}),
    ("ohem", {"min_kept": 100_000}),  # more than there are: plain cross entropy
    ("focal", {}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 5.0}),
    ("dice", {}),
    ("lovasz", {}),
]


def test_every_loss_has_a_reference() -> None:
    assert REFERENCES.keys() == losses.LOSSES.keys() == {kind for kind, _ in CASES}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_reference(kind: str, options: dict[str, float], weights: tuple[float, ...] | None) -> None:
    logits, labels = case()
    tensor = None if weights is None else torch.tensor(weights, dtype=logits.dtype)
    ours = losses.LOSSES[kind](logits, labels, tensor, VOID, **options)
    expected = REFERENCES[kind](pixels(logits, labels), weights or (1, 1, 1, 1), **options)
    assert ours.item() == pytest.approx(expected, rel=1e-12)
    assert 0.001 < expected < 10


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradients(kind: str, options: dict[str, float], weights: tuple[float, ...] | None) -> None:
    logits, labels = case()
    tensor = None if weights is None else torch.tensor(weights, dtype=logits.dtype)
    logits = logits[:, :, 1:3, :4].clone().requires_grad_()
    labels = labels[:, 1:3, :4]

    def loss(x: torch.Tensor) -> torch.Tensor:
        return losses.LOSSES[kind](x, labels, tensor, VOID, **options)

    assert torch.autograd.gradcheck(loss, logits)
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert torch.count_nonzero(gradient.movedim(1, -1)[labels == VOID]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("kind", losses.LOSSES)
def test_nothing_labelled_gives_zero_and_zero_gradients(
    kind: str, weights: tuple[float, ...] | None, dtype: torch.dtype
) -> None:
    logits = torch.randn(2, 4, 3, 5, dtype=dtype, requires_grad=True)
    tensor = None if weights is None else torch.tensor(weights)
    loss = losses.segmentation_loss(
        {"out": logits}, torch.full((2, 3, 5), VOID), loss=kind, class_weights=tensor
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kind", losses.LOSSES)
def test_what_void_pixels_say_is_not_heard(kind: str) -> None:
    logits, labels = case()
    loud = torch.where((labels == VOID)[:, None], 1e4 * torch.ones_like(logits), logits)
    one, other = (losses.LOSSES[kind](x, labels, None, VOID) for x in (logits, loud))
    assert one == other


@pytest.mark.parametrize("kind", losses.LOSSES)
@pytest.mark.parametrize("sure", [40.0, 1000.0])
def test_the_truth_costs_nothing_and_stays_finite(kind: str, sure: float) -> None:
    _, labels = case()
    truth = torch.nn.functional.one_hot(labels.clamp(max=3), 4).movedim(-1, 1).float()
    for sign, low, high in ((1, 0, 1e-6), (-1, 0.5, 3 * sure)):
        logits = (sign * sure * truth).requires_grad_()
        loss = losses.LOSSES[kind](logits, labels, None, VOID)
        loss.backward()
        assert low <= loss.item() < high
        assert torch.isfinite(logits.grad).all()


def test_closed_forms() -> None:
    """Equal scores for C classes, all pixels of one class: p = 1/C everywhere."""
    logits, labels = torch.zeros(1, 5, 6, 7, dtype=torch.float64), torch.full((1, 6, 7), 2)
    expected = {
        "ce": math.log(5),
        "ohem": math.log(5),
        "focal": 0.8**2 * math.log(5),
        "dice": 1 - 2 * 0.2 / (0.2 + 1),
        "lovasz": 0.8,
    }
    for kind, value in expected.items():
        assert losses.LOSSES[kind](logits, labels).item() == pytest.approx(value, rel=1e-12)
    ordinary, plain = (losses.focal(*case(), gamma=0.0), losses.cross_entropy(*case()))
    torch.testing.assert_close(ordinary, plain)


def test_lovasz_of_a_hard_answer_is_one_minus_the_iou() -> None:
    """At 0-1 errors the extension is the set function itself."""
    generator = torch.Generator().manual_seed(3)
    answer, labels = (torch.randint(0, 4, (2, 9, 8), generator=generator) for _ in range(2))
    logits = 1e4 * torch.nn.functional.one_hot(answer, 4).movedim(-1, 1).double()
    ious = [
        ((answer == c) & (labels == c)).sum().item() / ((answer == c) | (labels == c)).sum().item()
        for c in range(4)
    ]
    assert losses.lovasz_softmax(logits, labels).item() == pytest.approx(1 - sum(ious) / 4, rel=1e-12)


@pytest.mark.parametrize("kind", losses.LOSSES)
@pytest.mark.parametrize("loss_at", ["logits", "labels"])
def test_every_loss_on_both_grids_scales_and_aux(kind: str, loss_at: Any) -> None:
    """v2's four-way loss and PSPNet's auxiliary one add up whatever the loss is."""
    generator = torch.Generator().manual_seed(5)
    sizes = {"out": 5, "scale_0.5": 3, "scale_0.75": 4, "scale_1": 5, "aux": 5}
    scores = {name: torch.randn(2, 4, s, s, generator=generator) for name, s in sizes.items()}
    labels = torch.randint(0, 4, (2, 33, 33), generator=generator)
    expected = 0.0
    for name, logits in scores.items():
        if loss_at == "labels":
            grown = torch.nn.functional.interpolate(logits, (33, 33), mode="bilinear")
            term = losses.LOSSES[kind](grown, labels)
        else:
            term = losses.LOSSES[kind](logits, losses.shrink_labels(labels, (sizes[name], sizes[name])))
        expected += (0.4 if name == "aux" else 1) * term.item()
    total = losses.segmentation_loss(scores, labels, loss=kind, loss_at=loss_at)
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_a_sum_of_losses_with_their_options() -> None:
    logits, labels = case()
    total = losses.segmentation_loss(
        {"out": logits},
        labels,
        loss={"ce": 1, "dice": 0.5, "focal": 0.25},
        options={"focal": {"gamma": 3.0}},
    )
    parts = losses.cross_entropy(logits, labels) + 0.5 * losses.dice(logits, labels)
    torch.testing.assert_close(total, parts + 0.25 * losses.focal(logits, labels, gamma=3.0))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("lovas", r"unknown loss 'lovas': did you mean 'lovasz'\?"),
        ({"ce": 1, "dise": 1}, r"did you mean 'dice'\?"),
        ({"ce": -1}, "weight -1 of ce must be a number from 0 up"),
        ({"ce": "much"}, "weight 'much' of ce"),
        ({"ce": 0}, "adds up nothing"),
        ({}, "adds up nothing"),
    ],
)
def test_unusable_losses(loss: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        losses.loss_terms(loss)


def test_inverse_weights_weigh_a_mean_pixel_1() -> None:
    counts = torch.tensor([60, 30, 10, 0])
    weights = losses.class_weights_from_shares(counts, counts, "inverse")
    # 1 / (3 classes x shares 0.6, 0.3, 0.1)
    torch.testing.assert_close(weights, torch.tensor([1 / 1.8, 1 / 0.9, 1 / 0.3, 0.0]))
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
