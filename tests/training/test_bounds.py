"""A recipe that cannot be is refused in one line before anything begins; at its bounds it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrous import train as training
from atrous.config import Recipe, read_recipe, recipe_names
from atrous.errors import InputError
from atrous.training.bounds import BOUNDS, check_numbers, protocol_of

REFUSED: list[tuple[str, Any, str]] = [
    ("crop_size", 0, "crop_size 0 must be a whole number, at least 1 (or two: height, width)"),
    ("crop_size", (64, 0), "crop_size [64, 0] must be a whole number, at least 1"),
    ("crop_size", (1, 2, 3), "crop_size [1, 2, 3] must"),
    ("scale", (2.0, 0.5), "scale [2.0, 0.5] must be a range, the smaller number first"),
    ("scale", 1.0, "scale 1.0 must be a range"),
    ("scale", (0.0, 1.0), "scale [0.0, 1.0] must be a number, above 0"),
    ("learning_rate", -1.0, "learning_rate -1.0 must be a number, at least 0"),
    ("learning_rate", float("nan"), "learning_rate nan must"),
    ("learning_rate", "1e-3", "learning_rate 1e-3 must be a number"),  # what YAML makes of 1e-3
    ("weight_decay", -1.0, "weight_decay -1.0 must"),
    ("workers", -1, "workers -1 must be a whole number, at least 0"),
    ("seed", -1, "seed -1 must be a whole number, at least 0 and at most 4294967295"),
    ("step_every", 0, "step_every 0 must"),
    ("iterations", 0, "iterations 0 must"),
    ("iterations", -3, "iterations -3 must"),
    ("batch_size", 0, "batch_size 0 must"),
    ("batch_size", 2.5, "batch_size 2.5 must"),
    ("max_val", -1, "max_val -1 must"),
    ("max_val", True, "max_val True must"),
    ("epochs", 0, "epochs 0 must be a number, above 0"),
    ("evaluate_every", 0.3, "evaluate_every 0.3 must be a whole number, at least 1"),
    ("ema", 1.0, "ema 1.0 must be a number, above 0 and below 1"),
    ("devices", 0, "devices 0 must"),
    ("protocol", {"scales": 1}, "scales 1 must be a list of positive numbers"),
    ("protocol", {"scales": ["a"]}, "scales ('a',) must"),
    ("protocol", {"crf": True}, "crf True must be numbers by name"),
    ("protocol", {"crf": {"foo": 1}}, "unknown parameter of the CRF 'foo'"),
    ("protocol", {"crf": {"bi_w": "x"}}, "crf {'bi_w': 'x'} must be numbers by name"),
    ("protocol", {"output_stride": 7}, "output_stride=7 cannot be had here: choose one of"),
    ("protocol", {"flip": "no"}, "flip no must be true or false"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_one_line_before_anything_begins(
    name: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "launch", lambda *_: pytest.fail("launched"))
    with pytest.raises(InputError) as error:
        training.set_up(Recipe(**{"out": str(tmp_path / "run"), "backbone": "mobilenet_v2", name: value}))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", ["--crop_size 0", "--scale [2,0.5]", "--iterations -3", "--protocol.scales 1"]
)
def test_on_the_command_line(words: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    line = refused(["train", "scenes", "--out", str(tmp_path / "run"), *words.split()])
    assert words.split()[0].strip("-").split(".")[-1] in line


def test_bounds_are_drawn_where_they_say() -> None:
    """At `least` and `most` a setting is taken, a little beyond them not; at `above` and `below` it is not."""
    for name, bounds in BOUNDS.items():
        step = 1 if bounds.whole else 1e-9
        for good, bad in (
            (bounds.least, None if bounds.least is None else bounds.least - step),
            (bounds.most, None if bounds.most is None else bounds.most + step),
            (None if bounds.above is None else bounds.above + step, bounds.above),
            (None if bounds.below is None else bounds.below - step, bounds.below),
        ):
            if good is None:
                continue
            pair = (lambda x: (x, x)) if name == "scale" else (lambda x: x)
            check_numbers(Recipe(**{name: pair(good)}))
            with pytest.raises(InputError, match=f"^{name} "):
                check_numbers(Recipe(**{name: pair(bad)}))


def test_the_recipes_of_the_package_are_within_them() -> None:
    for name in recipe_names():
        recipe = read_recipe(name).resolved()
        check_numbers(recipe)
        protocol_of(recipe)
