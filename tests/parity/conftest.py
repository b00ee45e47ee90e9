"""Proofs: what a parity test found is kept, and `make checkpoints` writes the table of docs/checkpoints.md from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Prove = Callable[..., None]


@pytest.fixture
def prove() -> Prove:
    """prove(source, model, difference, against, bar=1e-4): assert difference <= bar, and keep it for the table.

    source: its name in SOURCES. model: which of its models, in a few words. against: what ours was compared with.
    """

    def keep(source: str, model: str, difference: float, against: str, bar: float = 1e-4) -> None:
        assert difference <= bar, f"{source}, {model}: {difference:.2g} > {bar:.0e}"
        folder = os.environ.get("ATROUS_PROOFS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            found = {"source": source, "model": model, "difference": difference, "against": against}
            name = "".join(c if c.isalnum() else "_" for c in f"{source} {model} {against}")
            (Path(folder) / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")

    return keep
