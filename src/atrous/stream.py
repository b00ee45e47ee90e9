"""Work that overlaps, in a fixed order and bounded memory: loading ahead, and gathering what has one size."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BATCHES_WAITING = 4  # items that wait for others of their size, in batches
POLITE = 10  # of 19 steps of niceness

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Given], Made], items: Iterable[Given], threads: int, limit: int
) -> Generator[tuple[Given, Future[Made]]]:
    """(item, its future `make(item)`), in the order of the items, each done when it comes.

    At most `limit` are made or being made before they are asked for. Where the processor is short, who asks goes first.
    """
    pool = ThreadPoolExecutor(threads, initializer=_give_way)
    try:
        waiting: deque[tuple[Given, Future[Made]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) >= limit:
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _give_way() -> None:
    """On Linux, where a thread has a priority of its own: the network waits for the slowest of its threads."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(POLITE, os.getpriority(os.PRIO_PROCESS, thread)))


def _done(pair: tuple[Given, Future[Made]]) -> tuple[Given, Future[Made]]:
    pair[1].exception()  # waits
    return pair


def buckets(
    items: Iterable[Given], size: Callable[[Given], Hashable], batch_size: int, limit: int | None = None
) -> Iterator[list[Given]]:
    """Lists of items of one size, `batch_size` long where there are so many, each item in one of them.

    At most `limit` items (by default four batches) wait for others of their size: then those go whose first has
    waited longest. The order follows from the sizes alone.
    """
    limit = BATCHES_WAITING * batch_size if limit is None else limit
    waiting: dict[Hashable, list[Given]] = {}
    count = 0
    for item in items:
        kind = size(item)
        waiting.setdefault(kind, []).append(item)
        count += 1
        if len(waiting[kind]) < batch_size:
            if count < limit:
                continue
            kind = next(iter(waiting))
        count -= len(waiting[kind])
        yield waiting.pop(kind)
    yield from waiting.values()
