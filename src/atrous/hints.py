"""Options from a command line, a recipe or a checkpoint's header, held against the type hints of what takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from atrous.errors import InputError, choose


def keyword_arguments(builder: Callable[..., Any]) -> dict[str, Any]:
    """The names of the keyword-only arguments of a function or class, with their type hints."""
    parameters = inspect.signature(builder, eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_value(name: str, value: Any, hint: Any) -> None:
    """InputError where `value` is not what `hint` says; of words, the nearest is suggested."""
    if fits(value, hint):
        return
    words = [word for part in parts(hint) if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(value, str) and words:
        choose(name, value, [*words, *(["True", "False"] if bool in parts(hint) else [])])
    wanted = " | ".join(
        getattr(part, "__name__", "") if isinstance(part, type) else str(part) for part in parts(hint)
    )
    for room in ("typing.", "collections.abc."):
        wanted = wanted.replace(room, "")
    raise InputError(f"{name}={value!r}: wanted {wanted.replace('NoneType', 'None')}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a hint: bool, int, float, None, a class, Literal, Sequence, Mapping, or a union of them.

    A whole number is a float; True and False are no numbers, and a string is no sequence.
    """
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in inside)
    if kind is Literal:
        return any(type(value) is type(word) and value == word for word in inside)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    if kind is Sequence:
        return isinstance(value, list | tuple) and all(fits(item, inside[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, inside[0]) and fits(item, inside[1]) for key, item in value.items()
        )
    return isinstance(value, NoneType if kind is None else kind)


def parts(hint: Any) -> tuple[Any, ...]:
    """What a union is of, the hint itself where it is none; unions inside taken apart."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(part for inside in get_args(hint) for part in parts(inside))
    return (hint,)
