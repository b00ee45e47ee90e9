"""What the CRF cannot use is one line that names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from drawn import picture, probabilities

from atrous.crf import DenseCRF, MeanField, Pairwise
from atrous.errors import InputError

H, W = 12, 16
GOOD: tuple[Any, Any] = (picture(H, W), probabilities(3, H, W))


@pytest.mark.parametrize(
    ("image", "p", "message"),
    [
        (GOOD[0], GOOD[1][0], r"probabilities: wanted \(C, H, W\) or \(N, C, H, W\), got \(12, 16\)"),
        (GOOD[0], (GOOD[1] * 255).astype(np.uint8), "probabilities: wanted floating values"),
        (GOOD[0], np.full_like(GOOD[1], np.nan), "probabilities: has NaN"),
        (GOOD[0], GOOD[1] * 2, "sum to 1 over C: apply softmax"),
        (GOOD[0], np.log(GOOD[1]), "are >= 0 and sum to 1"),
        (GOOD[0], GOOD[1] * 0.9, r"got values from .*, sums from 0\.9 to 0\.9$"),
        (GOOD[0], GOOD[1] * (np.arange(W) > 0), r"got values from 0, sums from 0 to 1$"),
        (GOOD[0], None, "probabilities: wanted a numeric numpy array or tensor, got .*NoneType"),
        (GOOD[0], GOOD[1].tolist(), "probabilities: wanted a numeric numpy array or tensor, got .*list"),
        (GOOD[0], np.zeros((0, H, W), np.float32), "probabilities: wanted"),
        (
            GOOD[0][:-1],
            GOOD[1],
            r"image: wanted \(12, 16, 3\) to match the scores \(3, 12, 16\), got \(11, 16, 3\)",
        ),
        (GOOD[0][..., 0], GOOD[1], r"image: wanted \(12, 16, 3\)"),
        (GOOD[0].astype(np.float32), GOOD[1], "image: wanted uint8 RGB"),
        (GOOD[0], GOOD[1].astype(object), "probabilities: wanted a numeric"),
    ],
)
def test_bad_input(image: Any, p: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseCRF()(image, p)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pos_xy_std": 0}, "pos_xy_std: wanted a positive number"),
        ({"bi_xy_std": -1}, "bi_xy_std: wanted a positive number"),
        ({"bi_rgb_std": float("nan")}, "bi_rgb_std: wanted a positive number"),
        ({"bi_w": -4}, "bi_w: wanted a number >= 0"),
        ({"iter_max": -1}, "iter_max: wanted a whole number"),
        ({"iter_max": 2.5}, "iter_max: wanted a whole number"),
        ({"pos_w": "3"}, "pos_w: wanted a number, got '3'"),
        ({"pos_w": None}, "pos_w: wanted a number, got None"),
        ({"bi_w": torch.ones(2)}, r"bi_w: wanted a number, got tensor\(\[1., 1.\]\)"),
        ({"pos_xy_std": (3, 3)}, r"pos_xy_std: wanted a number, got \(3, 3\)"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseCRF(**parameters)


def test_bad_models() -> None:
    unary, features = torch.rand(3, 10), torch.rand(2, 10)
    with pytest.raises(InputError, match=r"features: wanted \(d, 10\)"):
        MeanField(unary, [Pairwise(features[:, :9])])
    with pytest.raises(InputError, match="compatibility: wanted C = 3"):
        MeanField(unary, [Pairwise(features, torch.ones(4))])
    with pytest.raises(InputError, match=r"compatibility: wanted a number, \(C,\) or \(C, C\)"):
        Pairwise(features, torch.ones(4, 3))
    with pytest.raises(InputError, match="unary: has NaN"):
        MeanField(unary * float("nan"), [])
    with pytest.raises(InputError, match="did you mean 'symmetric'"):
        Pairwise(features, 1.0, "symetric")
