"""Every command and every piece of Python on the pages runs, on drawn data in a folder of its own."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "src/atrous/box/CARD.md",
    ]
)


def module(name: str) -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location(f"docs_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


BLOCKS, WORLD = module("blocks"), module("world")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    WORLD.make(folder)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_blocks_of_a_page_run(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [block for block in BLOCKS.blocks(page) if block.reason is None]
    if not found:
        return
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    names = WORLD.names()
    for block in found:
        try:
            BLOCKS.run(block, names)
        except Exception as error:
            raise AssertionError(f"{block}: {type(error).__name__}: {error}") from error


def test_a_block_that_is_not_run_says_why() -> None:
    """Few kinds of reasons, so that nothing hides behind the mark."""
    kinds = (
        "needs data",
        "needs a GPU",
        "needs the network",
        "needs more devices",
        "needs",
        "takes",
        "theirs",
        "a sketch",
    )
    for page in PAGES:
        for block in BLOCKS.blocks(page):
            assert block.reason is None or block.reason.startswith(kinds), f"{block}: {block.reason}"


def test_an_unmarked_block_that_cannot_be_run_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ make demo\n```\n\n<!-- not run: needs data -->\n```console\n$ make demo\n```\n"
    )
    first, second = BLOCKS.blocks(page)
    assert second.reason == "needs data"
    assert first.reason is None
    with pytest.raises(AssertionError, match=r"page\.md:1: .*only atrous is run"):
        BLOCKS.run(first, {})


def test_every_page_is_in_the_navigation() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = set(re.findall(r"'(\w+\.md)'", str(settings["nav"])))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings that a page links to are there."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{page.name}: {target}"
