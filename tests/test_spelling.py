"""Several numbers, yes or no, and one of some words: the ways to write them, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from atrous.cli import main
from atrous.verbs import evaluate, predict


@pytest.mark.parametrize(
    "words",
    [
        "--crop_size 321 481 --scale .5 2",
        "--crop-size 321,481 --scale=.5,2.",
        "--crop_size [321,481] --scale [.5,2]",
    ],
)
@pytest.mark.parametrize("yes", ["--blur --skip_broken", "--blur true --skip_broken True"])
def test_several_numbers_and_yes_or_no(words: str, yes: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = f"{words} {yes}".split()
    for line in (["train", "scenes", *flags], ["train", *flags, "scenes"]):
        main([*line, "--print_config"])
        recipe = yaml.safe_load(capsys.readouterr().out)
        assert (recipe["crop_size"], recipe["scale"]) == ([321, 481], [0.5, 2.0])
        assert (recipe["blur"], recipe["skip_broken"], recipe["data"]) == (True, True, "scenes")
    words = "--crop_size 321 --class_weights 1,2.5,3e-1 --flip false"
    main(["train", "scenes", *words.split(), "--print_config"])
    recipe = yaml.safe_load(capsys.readouterr().out)
    assert (recipe["crop_size"], recipe["class_weights"], recipe["flip"]) == (321, [1.0, 2.5, 0.3], False)


@pytest.mark.parametrize(
    "words",
    [
        "--scales 0.5 1 2 --trimap 1 5 --flip --no_crf a b",
        "--scales 0.5,1,2 --trimap 1,5 --flip true --crf false a b",
        "a --scales=0.5,1,2 b --trimap=1,5 --flip=true --crf=false",
        "a b --scales [0.5,1,2] --trimap [1,5] --flip --crf false",
    ],
)
def test_of_the_protocol(words: str) -> None:
    given = evaluate.arguments([]).parse_args(words.split())
    assert (given.checkpoint, given.data) == ("a", "b")
    assert (given.scales, given.trimap) == ((0.5, 1.0, 2.0), (1, 5))
    assert given.flip is True
    assert given.no_crf or given.crf is False


def test_a_picture_after_a_flag_is_no_value_of_it() -> None:
    given = predict.arguments([]).parse_args(["--flip", "--scales", "1", "2", "3.jpg", "5"])
    assert (given.flip, given.scales, given.pictures) == (True, (1.0, 2.0), ["3.jpg", "5"])
    given = predict.arguments([]).parse_args(["--flip", "photo.jpg", "5.png"])
    assert (given.flip, given.pictures) == (True, ["photo.jpg", "5.png"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optimizer adam", "--optimizer adam: wanted sgd or adamw; did you mean adamw?"),
        ("--loss diced", "or numbers by name, as {a: 1, b: 0.5}; did you mean dice?"),
        ("--loss.ce much", "--loss {ce: much}: wanted ce, ohem, focal, dice, lovasz or numbers by name"),
        ("--crop-size abc", "--crop_size abc: wanted a whole number or two whole numbers, as 1,2"),
        ("--crop_size 1,2,3", "--crop_size [1, 2, 3]: wanted a whole number or two whole numbers, as 1,2"),
        ("--scale 0.5", "--scale [0.5]: wanted two numbers, as 1,2"),
        (
            "--class_weights medain",
            "wanted none, median, enet, inverse or numbers, as 1,2; did you mean median?",
        ),
        ("--batch_size 2.5", "--batch_size 2.5: wanted a whole number"),
        ("--blur=maybe", "--blur maybe: wanted true or false"),
        ("--model_options wide", "--model_options wide: wanted options by name, as {a: 1}"),
    ],
)
def test_what_is_said(words: str, message: str, refused: Callable[..., str]) -> None:
    line = refused(["train", "scenes", *words.split()])
    assert message in line
    for raw in ("Parser key", "Union", "typing", "class"):
        assert raw not in line.replace("class_weights", "")


def test_of_other_verbs(refused: Callable[..., str]) -> None:
    assert refused(["evaluate", "box", "scenes", "--crf_options", "abc"]).endswith(
        "--crf_options abc: wanted numbers by name, as {a: 1, b: 0.5}"
    )
    assert refused(["info", "pspnet", "--size", "big"]).endswith("--size big: wanted whole numbers, as 1,2")
