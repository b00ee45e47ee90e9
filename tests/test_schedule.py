from __future__ import annotations

import pytest

from atrous import schedule


def test_poly_is_the_papers() -> None:
    assert schedule.poly(0, 20_000) == 1
    assert schedule.poly(10_000, 20_000) == pytest.approx(0.5**0.9)
    assert schedule.poly(20_000, 20_000) == 0


def test_step_drops_tenfold_every_2000() -> None:
    assert [schedule.step(i) for i in (0, 1999, 2000, 5999)] == pytest.approx([1, 1, 0.1, 0.01])


def test_warm_up_rises_to_one() -> None:
    assert [schedule.warm_up(i, 4) for i in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert schedule.warm_up(0, 0) == 1
