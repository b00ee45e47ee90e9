"""How values are written on a command line, by the type that a flag takes, and what is said of a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from atrous.hints import parts

BOOLEANS = ("true", "false", "null")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
NUMBERS = re.compile(rf"{NUMBER}(?:[, ]+{NUMBER})*,?", re.IGNORECASE)


def as_parsed(words: Sequence[str], types: Mapping[str, Any]) -> list[str]:
    """The words as the parser takes them: 1 2 and 1,2 behind a flag of several numbers as [1,2], a flag of yes or no
    that stands alone as true. types: by flag.

    >>> as_parsed(["photo.jpg", "--scales", "0.5", "1,2", "--flip", "--out", "x"],
    ...           {"--scales": tuple[float, ...], "--flip": bool})
    ['photo.jpg', '--scales=[0.5,1,2]', '--flip=true', '--out', 'x']
    """
    left, parsed = list(words), list[str]()
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        kinds = [get_origin(part) or part for part in parts(types[flag])] if flag in types else []
        if tuple in kinds:
            given = [value] if equals else []
            while not equals and left and NUMBERS.fullmatch(left[0]):
                given.append(left.pop(0))
            numbers = re.findall(NUMBER, " ".join(given), re.IGNORECASE)
            if given and all(map(NUMBERS.fullmatch, given)):
                alone = len(numbers) == 1 and {int, float} & {*kinds}
                word = f"{flag}={numbers[0]}" if alone else f"{flag}=[{','.join(numbers)}]"
        elif bool in kinds and not equals and not (left and left[0].lower() in BOOLEANS):
            word = f"{flag}=true"
        parsed.append(word)
    return parsed


def misfit(flag: str, value: str, hint: Any) -> str:
    """What to say of a value that is not of the type of its flag."""
    words = [str(word) for part in parts(hint) if get_origin(part) is Literal for word in get_args(part)]
    kinds = [part for part in parts(hint) if get_origin(part) is not Literal]
    near = difflib.get_close_matches(value, words, n=1, cutoff=0.5)
    *others, last = [*words, *filter(None, map(_described, kinds))]
    wanted = f"{', '.join(others)} or {last}" if others else last
    return f"{flag} {value}: wanted {wanted}" + (f"; did you mean {near[0]}?" if near else "")


def _described(part: Any) -> str:
    """A part of a union that is no list of words; "" for None."""
    inside = get_args(part)
    if get_origin(part) is tuple:
        what = "whole numbers" if int in inside else "numbers"
        return f"two {what}, as 1,2" if Ellipsis not in inside else f"{what}, as 1,2"
    if get_origin(part) is dict:
        return "numbers by name, as {a: 1, b: 0.5}" if float in inside else "options by name, as {a: 1}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", NoneType: ""}
    return plain.get(part, str(part))
