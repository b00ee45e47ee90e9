"""Work that is done ahead leaves the processor to who asks for it."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from atrous.stream import POLITE, ahead


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_what_is_done_ahead_gives_way() -> None:
    def niceness(_item: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness(0)
    assert {made.result() for _, made in ahead(niceness, range(5), 2, 3)} == {max(POLITE, before)}
    assert niceness(0) == before
