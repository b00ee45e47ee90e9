from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from atrous.tiling import Axis, parts, slide, slide_in_blocks, window_starts

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


def noise(window: torch.Tensor) -> torch.Tensor:
    """Scores (1, 5, h, w) that depend on the whole window and round differently in every order of addition."""
    shift = window.mean() * torch.arange(1, 6).view(1, 5, 1, 1)
    return torch.sin(window.sum(1, keepdim=True) * 7 + shift) * 1e3


BLOCKS = [  # height, width, window, overlap
    (40, 61, (16, 16), 1 / 3), (33, 33, (16, 12), 0.5), (50, 18, (16, 16), 0.7), (17, 90, (16, 16), 1 / 3),
    (9, 30, (16, 16), 1 / 3), (30, 9, (16, 16), 0.0), (3, 4, (8, 8), 0.5), (16, 17, (16, 16), 1 / 3),
]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "size", "overlap"), BLOCKS)
@pytest.mark.parametrize("wanted", [1, 2, 100])
def test_blocks_are_the_whole_to_the_last_bit(
    height: int, width: int, size: tuple[int, int], overlap: float, wanted: int
) -> None:
    image = torch.randn(1, 3, height, width)
    whole = slide(noise, image, size, overlap)
    rows, columns = Axis(height, size[0], overlap), Axis(width, size[1], overlap)
    padded = F.pad(image, (0, max(0, size[1] - width), 0, max(0, size[0] - height)))

    def score(top: int, left: int) -> torch.Tensor:
        return noise(padded[..., top : top + size[0], left : left + size[1]])

    count = len(columns.starts)
    edges = sorted({round(k * count / min(wanted, count)) for k in range(min(wanted, count) + 1)})
    for first_row in (0, len(rows.starts) // 2):
        found = torch.full_like(whole, float("nan"))
        for part in itertools.starmap(range, itertools.pairwise(edges)):
            for block in slide_in_blocks(score, rows, columns, part, first_row):
                if block is not None:
                    h, w = min(height - block.top, block.scores.shape[2]), block.scores.shape[3]
                    here = (
                        ...,
                        slice(block.top, block.top + h),
                        slice(block.left, min(width, block.left + w)),
                    )
                    assert found[here].isnan().all(), "a pixel came twice"
                    found[here] = block.scores[..., :h, : width - block.left]
        first = rows.starts[first_row]
        assert torch.equal(found[..., first:, :], whole[..., first:, :])
        assert found[..., :first, :].isnan().all()


@pytest.mark.parametrize("limit", [1, 20_000, 60_000, 10**9])
def test_parts_stay_within_the_limit(limit: int) -> None:
    columns = Axis(1000, 64, 1 / 3)
    found = parts(columns, 100, limit)
    assert [i for part in found for i in part] == list(range(len(columns.starts)))
    for part in found:
        width = columns.edge(part.stop - 1) + 64 - columns.edge(columns.first_over(part.start))
        assert len(part) == 1 or width * 100 <= limit
    assert (len(found) == 1) == (limit >= 100_000)
