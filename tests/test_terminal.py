"""What the commands print."""

from __future__ import annotations

import pytest
from rich.table import Table

from atrous import terminal


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("out/[red]/[b]x[/b].png")
    assert capsys.readouterr().out == "out/[red]/[b]x[/b].png\n"
    table = Table("[bold]name[/bold]")
    terminal.say(table)
    assert "[bold]" not in capsys.readouterr().out
