"""What training scripts put around a network's weights: dictionaries, beginnings of names, averages beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from atrous.errors import InputError
from atrous.importers.names import indented

# dictionaries of weights; where there are two, a moving average (EMA) comes last
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
    "module", "state_dict_ema", "ema_state_dict", "model_ema", "ema",
)  # fmt: skip
# before the names: torch's DataParallel, torch.compile, and the attribute that a LightningModule gave its network
AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.")
AVERAGE = ("ema", "model_ema", "avg", "averaged")  # what names of a moving average beside them begin with


def unwrapped(
    path: str, found: object, wanted: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """(the weights, what lies beside them, names of other sets of the same weights) in what torch.load gave.

    wanted: the name of the dictionary to take, or what the names of the weights to take begin with. None: the first of
    `WRAPPERS`, otherwise the only one.

    Raises InputError where there is none, or several.
    """
    extras: dict[str, Any] = {}
    beside: dict[str, Mapping[Any, Any]] = {}
    while isinstance(found, Mapping):
        names = sets_of_weights(found)
        inner = wanted if wanted in names else next((w for w in WRAPPERS if w in names), None)
        if inner is None and not _has_tensors(found):
            if len(names) > 1:
                raise InputError(
                    f"{path}: holds several sets of weights, {', '.join(names)}: say which with --weights NAME"
                )
            inner = next(iter(names), None)
        if inner is None:
            break
        if inner == wanted:
            wanted = None
        extras |= {str(key): value for key, value in found.items() if key != inner}
        beside |= {name: found[name] for name in names if name != inner}
        found = found[inner]
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: holds no dictionary of weights but a {type(found).__name__}")
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        some = [f"{str(key)[:60]} ({type(value).__name__})" for key, value in list(found.items())[:6]]
        more = ", ..." if len(found) > len(some) else ""
        raise InputError(
            f"{path}: holds no dictionary of weights but one of {', '.join(some) or 'nothing'}{more}"
        )
    extras |= {str(key): value for key, value in found.items() if not isinstance(value, Tensor)}
    weights, others = named_alike(path, tensors, wanted)
    return (
        weights,
        extras,
        [*(n for n, m in beside.items() if _alike(weights, unwrapped(path, m)[0])), *others],
    )


def named_alike(
    path: str, tensors: dict[str, Tensor], wanted: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """(the weights under `wanted` alone, or None: all; the beginnings of names of other sets of the same weights)."""
    if wanted is not None:
        weights = without_parallel(indented(wanted, tensors))
        if not weights:
            some = ", ".join(beginnings(tensors)[:6])
            raise InputError(f"{path}: no weights {wanted!r} in it; names begin with {some}")
    else:
        weights = without_parallel(tensors)
    return weights, [
        name
        for name in beginnings(tensors)
        if name != wanted
        and f"{name}." not in AROUND
        and _alike(weights, without_parallel(indented(name, tensors)))
    ]


def sets_of_weights(found: Mapping[Any, Any]) -> list[str]:
    """The dictionaries in a dictionary that hold weights, or one of `WRAPPERS` that does."""
    return [str(key) for key, value in found.items() if isinstance(key, str) and _holds_weights(value)]


def _holds_weights(value: object) -> bool:
    return isinstance(value, Mapping) and (
        _has_tensors(value) or any(_holds_weights(value[w]) for w in WRAPPERS if w in value)
    )


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items())


def _alike(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether most names of `others` are among the weights'."""
    return 2 * sum(name in weights for name in others) > len(others)


def beginnings(names: Iterable[str]) -> list[str]:
    """The first parts of dotted names, each once."""
    return list(dict.fromkeys(name.split(".")[0] for name in names))


def without_parallel(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what a wrapper put before most of them; the others, as a loss's or an average's, keep theirs."""
    for _ in AROUND:
        names = [name for name in tensors if not name.startswith(AVERAGE)]
        prefix = next((p for p in AROUND if 2 * sum(n.startswith(p) for n in names) > len(names)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
