from __future__ import annotations

from atrous.crf.search import COMBINATIONS, Parameters, coarse_to_fine


def hill(parameters: Parameters) -> float:
    """Highest, 1, at a point that lies on none of the grids."""
    peak = {"bi_w": 5.2, "bi_xy_std": 61.0, "bi_rgb_std": 4.4, "pos_w": 3.0, "pos_xy_std": 2.0}
    width = {"bi_w": 6.0, "bi_xy_std": 60.0, "bi_rgb_std": 6.0, "pos_w": 10.0, "pos_xy_std": 5.0}
    return 1 - sum(((parameters[name] - peak[name]) / width[name]) ** 2 for name in peak)


def test_comes_within_half_a_fine_step_of_the_best() -> None:
    calls: list[Parameters] = []

    def score(parameters: Parameters) -> float:
        calls.append(parameters)
        return hill(parameters)

    best = coarse_to_fine(score)
    assert abs(best["bi_w"] - 5.2) <= 0.75 / 2
    assert abs(best["bi_xy_std"] - 61) <= 7.5 / 2
    assert abs(best["bi_rgb_std"] - 4.4) <= 0.75 / 2
    assert (best["pos_w"], best["pos_xy_std"]) == (3, 2)
    assert len(calls) == len({tuple(c.items()) for c in calls}) <= COMBINATIONS  # none twice
    assert hill(best) == max(map(hill, calls))


def test_goes_beyond_the_grid_but_not_below_zero() -> None:
    best = coarse_to_fine(lambda p: -p["bi_rgb_std"] - p["bi_w"] + p["bi_xy_std"])
    assert best["bi_xy_std"] == 100 + 15 + 7.5
    assert best["bi_w"] > 0 and best["bi_rgb_std"] > 0


def test_of_equal_scores_the_first_counts() -> None:
    assert coarse_to_fine(lambda _: 0.0) == {
        "pos_w": 3,
        "pos_xy_std": 1,
        "bi_w": 4,
        "bi_xy_std": 40,
        "bi_rgb_std": 3,
    }
