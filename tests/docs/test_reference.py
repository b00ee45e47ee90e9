"""The page of the public names: each is there with a docstring, and none that the other pages use is missing."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import atrous

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def thing(name: str) -> Any:
    """What "atrous.crf.DenseCRF" names: a module, or a name of one."""
    module, _, last = name.rpartition(".")
    if not module:
        return importlib.import_module(name)
    home = thing(module)
    return getattr(home, last) if hasattr(home, last) else importlib.import_module(name)


def listed() -> list[Any]:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    return [thing(name) for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]


def used(text: str) -> set[str]:
    """Full names that a page's Python imports from this package, and those that its sentences name."""
    found = set(re.findall(r"(?<![\w./])atrous(?:\.[a-z_]+)+\.[A-Za-z]\w+", text))
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "atrous":
                found |= {f"{node.module}.{each.name}" for each in node.names}
    return found


def test_every_listed_name_is_documented() -> None:
    for each in listed():
        assert each.__module__.startswith("atrous.") and each.__doc__, each


def test_every_name_that_a_page_uses_is_listed() -> None:
    known = listed()
    for name in (f"atrous.{name}" for name in atrous.__all__):
        assert name in ("atrous.__version__", "atrous.hub") or thing(name) in known, name
    for page in PAGES:
        for name in used(page.read_text(encoding="utf-8")):
            if not inspect.ismodule(thing(name)) and "pydensecrf_api" not in name:  # that is pydensecrf's own
                assert thing(name) in known, f"{page.name}: {name}"
