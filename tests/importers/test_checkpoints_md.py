"""docs/checkpoints.md names every source, and its table is as the writer makes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from atrous.importers import SOURCES

WRITER = Path(__file__).parents[1] / "parity" / "write_checkpoints_md.py"


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_checkpoints_md", WRITER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_source_is_in_the_table_with_a_difference_below_the_bar() -> None:
    module = writer()
    page = module.PAGE.read_text(encoding="utf-8")
    rows = page.split(module.BEGIN)[1].split(module.END)[0].strip().splitlines()[2:]
    found = {row.split("|")[1].strip(" `"): float(row.split("|")[4]) for row in rows}
    assert found.keys() == SOURCES.keys()


def test_the_writer_says_what_is_not_proved() -> None:
    module = writer()
    proof = {"source": "a", "model": "m", "difference": 2e-6, "against": "its code"}
    text = module.table([proof, {**proof, "model": "k", "difference": 3e-5}], ["a", "b"])
    assert "| `a` | its code | 2 | 3.0e-05 | k; m |" in text
    assert "| `b` | **nothing: not proved** |" in text
    assert (
        module.replace_table(f"x{module.BEGIN}old{module.END}y", "new")
        == f"x{module.BEGIN}\nnew\n{module.END}y"
    )
