"""Options of models and backbones: a value that an option does not have is refused, not taken for True."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch

from atrous.errors import InputError
from atrous.hints import fits
from atrous.models import create_model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separable": "palin"}, "unknown separable 'palin': did you mean 'plain'?"),
        ({"separable": "True"}, "separable='True': wanted bool | Literal['plain', 'linear']"),
        ({"separable": 1}, "separable=1: wanted bool | Literal['plain', 'linear']"),
        ({"aspp_separable": "lineer"}, "unknown aspp_separable 'lineer': did you mean 'linear'?"),
        ({"aux": "no"}, "aux='no': wanted bool"),
        ({"align_corners": "asymetric"}, "unknown align_corners 'asymetric': did you mean 'asymmetric'?"),
        ({"channels": "256"}, "channels='256': wanted int"),
        ({"channels": True}, "channels=True: wanted int"),
        ({"atrous_rates": "6"}, "atrous_rates='6': wanted Sequence[int] | None"),
        ({"atrous_rates": (6, 12.5)}, "atrous_rates=(6, 12.5): wanted Sequence[int] | None"),
        ({"dropout": "high"}, "dropout='high': wanted float"),
        ({"dilate_from": "frist"}, "unknown dilate_from 'frist': did you mean 'first'?"),  # of the backbone
        ({"deep_stem": "yes"}, "deep_stem='yes': wanted bool | Sequence[int]"),
    ],
    ids=str,
)
def test_a_value_that_is_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        create_model("deeplab_v3plus", "resnet18", **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("option", "complaint"),
    [("msk", "unknown option 'msk': did you mean 'msc'? "), ("qqqqqqqq", "unknown option 'qqqqqqqq': ")],
)
def test_an_option_that_is_none(option: str, complaint: str) -> None:
    """The nearest, if any, then all of them."""
    with pytest.raises(InputError) as error:
        create_model("deeplab_v1", "resnet18", **{option: 1})
    known, of_backbone = str(error.value).removeprefix(complaint).split("; ")
    assert known == "deeplab_v1 has msc, fc6_rate, fc6_kernel, fc_channels, align_corners, crf"
    assert of_backbone.startswith("resnet18 has deep_stem, ")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"num_classes": "3"}, "num_classes='3': wanted int"),
        ({"num_classes": True}, "num_classes=True: wanted int"),
        ({"in_channels": 3.0}, "in_channels=3.0: wanted int"),
        ({"output_stride": "8"}, "output_stride='8': wanted int"),
        ({"backbone": 18}, "backbone=18: wanted str"),
        ({"pretrained": 1}, "pretrained=1: wanted bool | str | Path | None"),
    ],
    ids=str,
)
def test_an_argument_of_another_kind(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        create_model("deeplab_v3plus", **{"backbone": "resnet18", **argument})
    assert str(error.value) == message


def test_numbers_of_numpy_are_kept_as_python_has_them() -> None:
    """As of mask.max() + 1; a header is JSON."""
    with torch.device("meta"):
        config = create_model("deeplab_v3plus", "resnet18", num_classes=np.int64(3)).config  # type: ignore[arg-type]
    assert type(config.num_classes) is int
    assert config.num_classes == 3


def test_a_weight_of_the_crf_is_a_number() -> None:
    with pytest.raises(InputError, match=r"crf={'pos_w': 'big'}: wanted bool | dict\[str, float\]"):
        create_model("deeplab_v1", "resnet18", crf={"pos_w": "big"})


@pytest.mark.parametrize(
    "options",
    [
        {"separable": "plain"},
        {"separable": True, "aspp_separable": None},
        {"atrous_rates": [6, 12]},
        {"dropout": 0},
    ],
    ids=str,
)
def test_values_as_a_header_or_a_command_gives_them(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        assert options.items() <= create_model("deeplab_v3plus", "resnet18", **options).config.options.items()


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (1.0, int, False),
        (False, int, False),
        (None, int | None, True),
        ((), Sequence[int], True),
        ("12", Sequence[int], False),
        (1, bool | Literal["a"], False),
        ("a", bool | Literal["a"], True),
        (1, Literal[True], False),
        ({"w": 1}, dict[str, float], True),
        ({"w": "1"}, dict[str, float], False),
    ],
    ids=str,
)
def test_fits(value: object, hint: Any, expected: bool) -> None:
    assert fits(value, hint) == expected


def test_the_command_says_it(refused: Callable[..., str]) -> None:
    words = ["info", "deeplab_v3", "--backbone", "resnet18", "--model_options.separable", "palin"]
    assert "unknown separable 'palin': did you mean 'plain'?" in refused(words)
