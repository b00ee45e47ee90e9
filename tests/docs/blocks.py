"""The commands and the Python of a page: what stands in it, and running it.

A block of commands or Python is run, unless the line before it is a comment that says why not:

    <!-- not run: needs VOC -->
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r"(?:^(?P<mark><!--(?:(?!-->).)*-->)\n+)?^```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUNS = ("console", "bash", "sh", "shell", "python", "py", "pycon")
LOOKS_LIKE_COMMANDS = re.compile(r"^(\$ |atrous |pip |python |make )", re.MULTILINE)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>\S.*?)\s*-->")
QUICK = "--iterations 2 --batch_size 2 --crop_size 33 --workers 0 --device cpu --max_val 1".split()


@dataclass
class Block:
    page: Path
    line: int
    language: str
    text: str
    reason: str | None  # why it is not run

    @property
    def commands(self) -> list[str]:
        """The lines after "$ ", continued lines joined, comments taken off."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that are to be run, or say why not."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, body = match["language"], match["text"]
        if language not in RUNS and (language or not LOOKS_LIKE_COMMANDS.search(body)):
            continue
        said = NOT_RUN.fullmatch(match["mark"] or "")
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(page, line, language, body, said["reason"] if said else None))
    return found


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the current folder; `names` are the globals of the Python of a page, and stay."""
    if block.language in ("python", "py"):
        exec(compile(block.text, str(block), "exec"), names)
        return
    if not block.commands or block.language != "console":
        raise AssertionError(f"{block}: commands are ```console blocks with lines that begin with '$ '")
    for command in block.commands:
        run_command(command, block)


def run_command(command: str, block: Block) -> None:
    """`atrous ...` in this process, trainings for two steps; of `pip install 'atrous[X]'` the extra has to exist."""
    from atrous.cli import main

    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        extras = set(re.findall(r"atrous\[([\w,]+)\]", " ".join(words)))
        known = extras_of_the_project()
        assert all(set(each.split(",")) <= known for each in extras), f"{block}: {command}"
        assert extras or words[2:] == ["atrous"], f"{block}: {command}: what does it install?"
        return
    redirected = ">" in words
    assert words[0] == "atrous", f"{block}: {command}: only atrous is run; mark the block"
    assert not redirected, f"{block}: {command}: mark the block"
    if words[1] == "train" and not {"--resume", "--print_config"} & set(words):
        words += QUICK
        if "--out" in words:  # of the folder that every page finds, the page makes this run itself
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    try:
        main(words[1:])
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"{block}: {command}: exit {stop.code}") from None


def extras_of_the_project() -> set[str]:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    return set(project["optional-dependencies"])
