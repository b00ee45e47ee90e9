"""The papers' search for the CRF's parameters: coarse, then fine (v1 sec. 5; v2 sec. 4.1).

    coarse      every combination of bi_w, bi_xy_std, bi_rgb_std on a wide grid
    fine        the neighbours of the best, in all three, with half the step; then with a quarter of it
    position    pos_w and pos_xy_std around that best

The mean field's 10 iterations stay. What a combination is worth is the caller's matter (`atrous.tuning`: mIoU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product

Parameters = dict[str, float]

# v1 searches bi_w in 5..10, bi_xy_std in 50..100, bi_rgb_std in 3..10; v2 in 3..6, 30..100, 3..6: both within these
COARSE = {"bi_w": (4.0, 7.0, 10.0), "bi_xy_std": (40.0, 70.0, 100.0), "bi_rgb_std": (3.0, 6.0, 9.0)}
POSITION = {"pos_w": (1.0, 3.0, 5.0), "pos_xy_std": (1.0, 2.0, 3.0)}
START = {"pos_w": 3.0, "pos_xy_std": 1.0}
FINE_ROUNDS = 2
COMBINATIONS = 27 + FINE_ROUNDS * 26 + 8  # at most: the best of each stage is known in the next


def coarse_to_fine(score: Callable[[Parameters], float]) -> Parameters:
    """Return the parameters with the highest `score`; it is called once for each combination, in a fixed order.

    Of equal scores the first counts.
    """
    known: dict[tuple[float, ...], float] = {}

    def best_of(candidates: Iterator[Parameters], best: Parameters) -> Parameters:
        for candidate in candidates:
            key = tuple(candidate.values())
            if key not in known:
                known[key] = score(candidate)
            if known[key] > known.get(tuple(best.values()), float("-inf")):
                best = candidate
        return best

    best = best_of(combinations(START, COARSE), START | {name: values[0] for name, values in COARSE.items()})
    for half in range(1, FINE_ROUNDS + 1):
        near = {name: around(best[name], (v[1] - v[0]) / 2**half) for name, v in COARSE.items()}
        best = best_of(combinations(best, near), best)
    return best_of(combinations(best, POSITION), best)


def combinations(fixed: Parameters, axes: Mapping[str, tuple[float, ...]]) -> Iterator[Parameters]:
    """`fixed` with every combination of the values in `axes`."""
    for values in product(*axes.values()):
        yield fixed | dict(zip(axes, values, strict=True))


def around(value: float, step: float) -> tuple[float, ...]:
    """The value and its neighbours a step away, those above 0."""
    return tuple(v for v in (value - step, value, value + step) if v > 0)
