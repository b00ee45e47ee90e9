"""How known data sets number their classes in files, told from the values where there are several ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from atrous.data.labels import IGNORE_INDEX, IGNORE_INDEX_16, Labels
from atrous.data.pictures import read_mask
from atrous.errors import InputError, choose

LOOKED_AT = 256  # masks read at most to tell the numbering
SHADES, SHADED = 32, 0.75  # more values between two that have so large a share of the pixels are soft edges


@dataclass(frozen=True)
class IdMap:
    """One way to number the classes: `values` holds {value in a file: class or ignore index}, and all of them.

    void: the value of pixels without a class. what: the numbering in a few words.
    """

    name: str
    what: str
    values: Mapping[int, int]
    void: int

    @classmethod
    def of(cls, name: str, what: str, ids: Iterable[int], void: int) -> IdMap:
        """Classes 0, 1, ... stand in the files as `ids`; `void` is ignored."""
        return cls(name, what, {**{i: c for c, i in enumerate(ids)}, void: IGNORE_INDEX}, void)


def tell_id_map(masks: Sequence[Path], candidates: Sequence[IdMap], given: str | None) -> tuple[IdMap, str]:
    """Which of `candidates` (the usual one first) the masks are in, and a note on how that was told.

    given: the name of one, from a person who knows. Otherwise up to `LOOKED_AT` masks, evenly spread, are
    read: a candidate goes when a value is seen that it lacks. Of those left, the usual one is taken, unless
    only another one's void value was seen. InputError: none is left, or it cannot be told.
    """
    if given is not None:
        name = choose("encoding", given, [candidate.name for candidate in candidates])
        return next(candidate for candidate in candidates if candidate.name == name), "as said"
    if len(candidates) == 1:
        return candidates[0], ""
    left, seen = list(candidates), dict[int, Path]()
    for index in np.linspace(0, len(masks) - 1, min(LOOKED_AT, len(masks))).astype(int):
        try:
            counts = np.bincount(read_mask(masks[index]).ravel())
        except InputError:
            continue  # said with its picture when it is read
        for value in np.flatnonzero(counts).tolist():
            seen.setdefault(value, masks[index])
        left = [candidate for candidate in left if seen.keys() <= candidate.values.keys()]
        if len(left) < 2:
            break
    if not left:
        raise InputError(
            f"{_strange(seen, candidates)}: is this another data set, or another numbering of its ids?"
        )
    usual = candidates[0]
    if len(left) == 1:
        return left[0], "told from the values" + ("" if left[0] is usual else f", not the usual {usual.name}")
    with_void = [candidate for candidate in left if candidate.void in seen]
    if usual in with_void or (usual in left and not with_void):
        return usual, "as usual here; the values fit"
    names = " or ".join(candidate.name for candidate in left)
    raise InputError(
        f"{masks[0].parent}: the values of {min(LOOKED_AT, len(masks))} masks do not tell how the classes are "
        f"numbered: say --data_options.encoding {names}"
    )


def _strange(seen: Mapping[int, Path], candidates: Sequence[IdMap]) -> str:
    lacking = {c.name: [value for value in sorted(seen) if value not in c.values] for c in candidates}
    nearest = min(candidates, key=lambda c: len(lacking[c.name]))
    file = seen[lacking[nearest.name][0]]
    told = ", ".join(f"{name} has no {', '.join(map(str, values[:3]))}" for name, values in lacking.items())
    return f"{file}: mask values fit no known numbering ({told})"


def black_and_white(masks: Iterable[Path]) -> str:
    """What to say of masks without a class but 0."""
    for path in masks:
        try:
            values = [value for value in np.unique(read_mask(path)).tolist() if value]
        except InputError:
            continue  # said with its picture
        if values:
            found = ", ".join(map(str, values))
            return (
                f"the masks hold no class but 0: {path} has 0 and {found}, which is left out as void; for masks in "
                f"black and white say that it is class 1: --data_options.values '{{{values[0]}: 1}}'"
            )
    return "the masks hold nothing but 0"


def doubt_of_numbers(counts: np.ndarray) -> str:
    """Why values in masks can hardly be the numbers of classes, and what to say; "" where they can.

    counts: pixels of each value in all masks. Most values below the highest do not occur, or nearly all pixels have
    the lowest or highest and the rest shades between.
    """
    values = np.flatnonzero(counts)
    if len(values) - 2 > SHADES and counts[[values[0], values[-1]]].sum() > SHADED * counts.sum():
        ends = f"{values[0]} and {values[-1]}"
        return (
            f"the masks look black and white with soft edges: nearly all pixels are {ends}, the others have "
            f"{len(values) - 2} values between, each a class now; save them with those two alone (no JPEG, no smooth "
            f"resizing), and say --data_options.values '{{{values[-1]}: 1}}'"
        )
    numbers = [value for value in values.tolist() if value not in (IGNORE_INDEX, IGNORE_INDEX_16)]
    if not numbers or 2 * len(numbers) > numbers[-1]:
        return ""
    table = ", ".join(f"{value}: {number}" for number, value in enumerate(numbers) if value != number)
    remedy = (
        f", or number those there are with --data_options.values '{{{table}}}'"
        if len(numbers) <= SHADES
        else ""
    )
    return (
        f"only {len(numbers)} of the numbers 0 to {numbers[-1]} are in the masks, and each number is a class: name the "
        f"classes in classes.txt{remedy}"
    )


def describe_values_map(values: Mapping[int, int], labels: Labels, closed: bool) -> str:
    """What each value of the files becomes, in one line: "7-8 -> 0-1 (road, sidewalk), ...; ignored: 0-6, ..."."""
    if closed:
        raw = sorted(values)
    else:
        raw = sorted({*range(len(labels)), labels.ignore_index, *values})
    ignored = [value for value in raw if values.get(value, value) == labels.ignore_index]
    sources: dict[int, list[int]] = {}
    for value in raw:
        if (target := values.get(value, value)) < len(labels):
            sources.setdefault(target, []).append(value)

    def run_of(place: tuple[int, int]) -> tuple[int, ...]:
        """The same for neighbours that one span can name: single values that rise with their classes."""
        index, target = place
        single = len(sources[target]) == 1
        return (target - index, sources[target][0] - index) if single else (target,)

    runs = [[target for _, target in run] for _, run in groupby(enumerate(sorted(sources)), run_of)]
    parts = [_run([value for target in run for value in sources[target]], run, labels) for run in runs]
    return f"{', '.join(parts)}; ignored: {_ranges(ignored) or 'none'}"


def describe_colours(colours: Labels, values: Mapping[int, int], labels: Labels) -> str:
    """What each colour becomes, in one line: "128,64,128 -> 0 (road); ...; ignored: 0,0,0"."""
    numbers = [*range(len(colours)), *[colours.ignore_index] * len(colours.void_colours)]
    classes, ignored = [], []
    for number, colour in zip(numbers, (*colours.palette, *colours.void_colours), strict=True):
        target, shown = values.get(number, number), ",".join(map(str, colour))
        if target == labels.ignore_index:
            ignored.append(shown)
        else:
            classes.append(f"{shown} -> {target} ({labels.names[target]})")
    return f"{'; '.join(classes)}; ignored: {' and '.join(ignored) or 'none'}"


def _run(values: Sequence[int], targets: Sequence[int], labels: Labels) -> str:
    names = [labels.names[target] for target in targets]
    shown = ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"
    return f"{_ranges(values)} -> {_span(targets[0], targets[-1])} ({shown})"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _ranges(values: Sequence[int]) -> str:
    runs = [list(run) for _, run in groupby(enumerate(values), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(_span(run[0][1], run[-1][1]) for run in runs)
