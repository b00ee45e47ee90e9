"""Errors a person can act on: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that was given cannot be used. The command line prints the message alone and exits with 2."""


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return `name` where it is one of `choices`; otherwise raise an InputError that suggests the nearest."""
    options = list(choices)
    if name in options:
        return name
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(options)}"
    raise InputError(f"unknown {kind} {name!r}: {hint}")
