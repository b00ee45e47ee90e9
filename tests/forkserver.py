"""Processes of the tests' own: torch is imported once, by the server, and not by each of them."""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["atrous.train"])
