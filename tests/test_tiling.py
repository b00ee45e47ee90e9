from __future__ import annotations

import itertools

import pytest
import torch

from atrous.tiling import slide, window_starts

COVERS = [(1, 5, 0.3), (5, 5, 0.3), (6, 5, 0.9), (1000, 129, 1 / 3)]


@pytest.mark.parametrize(("length", "window", "overlap"), COVERS)
def test_windows_cover_everything_with_the_overlap(length: int, window: int, overlap: float) -> None:
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - window)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < step <= max(1, window * (1 - overlap)) for step in steps)


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (40, 33)])
def test_a_scorer_that_looks_at_single_pixels_is_not_changed(size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slide(torch.sin, image, (8, 8), 0.5), torch.sin(image))


def test_scores_are_averaged_where_windows_overlap() -> None:
    numbers = iter([1.0, 3.0])
    result = slide(lambda x: torch.full_like(x, next(numbers)), torch.zeros(1, 1, 1, 6), (1, 4), 0.5)
    assert result.flatten().tolist() == [1, 1, 2, 2, 3, 3]
