from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atrous import losses


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 9, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 9, 7), generator=generator)
    labels[:, :2] = 255
    return logits, labels


def test_plain_and_weighted_match_torch() -> None:
    logits, labels = logits_and_labels()
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    for w in (None, weights):
        expected = F.cross_entropy(logits, labels, w, ignore_index=255)
        torch.testing.assert_close(losses.cross_entropy(logits, labels, w), expected)


def test_nothing_labelled_gives_zero_and_no_gradient_noise() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    for weights in (None, torch.ones(3)):
        loss = losses.cross_entropy(logits, labels, weights)
        loss.backward()
        assert loss.item() == 0
        assert torch.count_nonzero(logits.grad) == 0


def test_uniform_scores_cost_log_c() -> None:
    loss = losses.segmentation_loss(
        {"out": torch.zeros(1, 5, 3, 3)}, torch.zeros(1, 17, 17, dtype=torch.long)
    )
    assert loss.item() == pytest.approx(math.log(5))


def test_labels_shrink_to_the_nearest_pixel() -> None:
    labels = torch.arange(36).view(1, 6, 6)
    # a cell of 3x3 pixels takes its middle one
    assert losses.shrink_labels(labels, (2, 2)).tolist() == [[[7, 10], [25, 28]]]


def test_where_the_loss_is_taken_matters_as_the_papers_say() -> None:
    """Labels shrunk lose the thin line that grown logits are asked for."""
    labels = torch.zeros(1, 24, 24, dtype=torch.long)
    labels[:, :, 0] = 1  # one pixel wide, missed by the middle of every 8x8 cell
    scores = {"out": torch.stack([torch.full((1, 3, 3), 5.0), torch.full((1, 3, 3), -5.0)], 1)}
    shrunk = losses.segmentation_loss(scores, labels, loss_at="logits")
    grown = losses.segmentation_loss(scores, labels, loss_at="labels")
    assert shrunk < 1e-3
    assert grown == pytest.approx(10 / 24, rel=1e-2)


def test_every_scale_counts_and_aux_by_its_weight() -> None:
    logits, labels = logits_and_labels()
    one = losses.cross_entropy(logits, labels)
    loss = losses.segmentation_loss({"out": logits, "scale_1": logits, "aux": logits}, labels, aux_weight=0.4)
    torch.testing.assert_close(loss, 2.4 * one)


def test_class_weights_follow_their_formulas() -> None:
    pixels = torch.tensor([60, 30, 10, 0])
    in_pictures = torch.tensor([100, 100, 50, 0])
    median = losses.class_weights_from_shares(pixels, in_pictures, "median")
    # frequencies 0.6, 0.3, 0.2: median 0.3
    torch.testing.assert_close(median, torch.tensor([0.5, 1.0, 1.5, 0.0]))
    even = losses.class_weights_from_shares(torch.tensor([80, 20]), torch.tensor([100, 100]), "median")
    torch.testing.assert_close(even, torch.tensor([0.5 / 0.8, 0.5 / 0.2]))  # the mean of the middle two
    enet = losses.class_weights_from_shares(pixels, in_pictures, "enet")
    expected = [1 / math.log(1.62), 1 / math.log(1.32), 1 / math.log(1.12), 0.0]
    torch.testing.assert_close(enet, torch.tensor(expected))


@pytest.mark.parametrize("loss", ["ce", "focal", {"ce": 1.0, "focal": 0.5}])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_parts_with_the_mean_count_average_to_the_whole(loss: Any, weights: tuple[float, ...] | None) -> None:
    """As with two processes, of which one has nearly all its pixels ignored: the same loss, and the same gradients."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=random).requires_grad_()
    labels = torch.randint(0, 3, (4, 10, 12), generator=random)
    labels[2:, 1:] = 255
    class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def found(part: slice, average: Any) -> Tensor:
        return losses.segmentation_loss(
            {"out": logits[part]}, labels[part], loss=loss, class_weights=class_weights, average=average
        )

    counts: list[Tensor] = []
    whole = found(slice(None), lambda count: counts.append(count) or count)
    parts = [found(part, lambda _own: counts[0] / 2) for part in (slice(2), slice(2, 4))]
    together = sum(parts) / 2
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=0)
    expected, gradient = (torch.autograd.grad(value, logits)[0] for value in (whole, together))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-15)
    alone = (found(slice(2), lambda own: own) + found(slice(2, 4), lambda own: own)) / 2
    assert abs(float(alone.detach() - whole.detach())) > 1e-3  # the plain mean of means is another loss
