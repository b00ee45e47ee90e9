"""From another project's names of weights to ours, by a table of prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

# {"classifier.0.project": "context.project"}: what begins so, up to a dot or the end; the longest prefix counts,
# "" fits every name, and None leaves a weight out on purpose.
Table = dict[str, str | None]


@dataclass
class Renamed:
    """Weights in our names.

    weights: our name -> tensor. origin: our name -> theirs. left_out: names that the table leaves out. unknown: names
    for which it has no prefix.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def rename(weights: Mapping[str, Tensor], table: Table) -> Renamed:
    """Rename all `weights`; two of them that would get one name is a ValueError."""
    result = Renamed()
    for theirs, tensor in weights.items():
        prefix = next((p for p in prefixes(theirs) if p in table), None)
        ours = None if prefix is None else table[prefix]
        if prefix is None:
            result.unknown.append(theirs)
        elif ours is None:
            result.left_out.append(theirs)
        else:
            name = f"{ours}.{theirs[len(prefix) :].lstrip('.')}".strip(".")
            if name in result.weights:
                raise ValueError(f"{theirs} and {result.origin[name]} are both {name}")
            result.weights[name], result.origin[name] = tensor, theirs
    return result


def prefixes(name: str) -> Iterable[str]:
    """The leading parts of a dotted name, longest first, and "" at the end.

    >>> list(prefixes("a.b.c"))
    ['a.b.c', 'a.b', 'a', '']
    """
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts), -1, -1)]


def invert(table: Table) -> dict[str, str]:
    """The table that leads back from our names to theirs; what was left out does not come back."""
    return {ours: theirs for theirs, ours in table.items() if ours is not None}


def indented(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under `prefix`, without it."""
    dotted = f"{prefix}."
    return {name.removeprefix(dotted): value for name, value in weights.items() if name.startswith(dotted)}
