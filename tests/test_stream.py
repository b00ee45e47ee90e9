"""Work done ahead: its order, its limit, and that it leaves the processor to who asks for it; buckets of one size."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.stream import POLITE, ahead, buckets


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_what_is_done_ahead_gives_way() -> None:
    def niceness(_item: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness(0)
    assert {made.result() for _, made in ahead(niceness, range(5), 2, 3)} == {max(POLITE, before)}
    assert niceness(0) == before


def test_ahead_keeps_the_order_and_its_limit() -> None:
    made, most = 0, 0
    lock = threading.Lock()

    def make(number: int) -> int:
        nonlocal made
        time.sleep(0.002 * (number % 3))  # later ones are done earlier
        with lock:
            made += 1
        if number == 7:
            raise InputError("seven")
        return number * 10

    taken = []
    for index, (number, future) in enumerate(ahead(make, range(20), 3, 5)):
        most = max(most, made - index)
        taken.append("broken" if future.exception() else future.result())
        assert number == index
    assert taken == [i * 10 if i != 7 else "broken" for i in range(20)]
    assert most <= 5


def test_ahead_can_be_left() -> None:
    """The threads end with it."""
    before = threading.active_count()
    for _ in ahead(lambda x: x, range(1000), 2, 4):
        break
    assert threading.active_count() <= before + 2
    stream = ahead(lambda x: x, range(1000), 2, 4)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_buckets_have_one_size_and_hold_each_item_once() -> None:
    sizes = np.random.default_rng(0).integers(0, 6, 200).tolist()
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for item in enumerate(sizes):
            taken += 1
            yield item

    given, waiting = [], []
    for batch in buckets(counted(), lambda item: item[1], 4, 10):
        assert len({size for _, size in batch}) == 1
        assert len(batch) <= 4
        waiting.append(taken - len(given))
        given += batch
    assert sorted(given) == list(enumerate(sizes))
    assert max(waiting) <= 10
    assert list(buckets(iter("aabb"), str, 2, 8)) == [["a", "a"], ["b", "b"]]
    assert list(buckets(iter("abab"), str, 1, 4)) == [["a"], ["b"], ["a"], ["b"]]
