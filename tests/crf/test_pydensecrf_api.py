"""pydensecrf's interface, used as its own tests and examples use it, and beside the real one where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import CASES, picture, probabilities

from atrous.crf import pydensecrf_api as dcrf
from atrous.crf.pydensecrf_api import utils

TABLE = np.load(Path(__file__).with_name("pydensecrf.npz"))
N, C, H, W = 12 * 16, 3, 12, 16


def energies() -> np.ndarray[Any, Any]:
    return utils.unary_from_softmax(probabilities(C, H, W))


@pytest.mark.parametrize("general", [True, False])
def test_both_classes_give_pydensecrfs_table(general: bool) -> None:
    height, width, classes, p = CASES["wide"]
    image, unary = picture(height, width), utils.unary_from_softmax(probabilities(classes, height, width))
    std = (p["bi_rgb_std"],) * 3
    crf: Any
    if general:
        crf = dcrf.DenseCRF(height * width, classes)
        # the grid's axes come in the order y, x here and x, y in DenseCRF2D: the lattice differs, as in pydensecrf
        grid = utils.create_pairwise_gaussian((p["pos_xy_std"],) * 2, (height, width))[::-1]
        both = utils.create_pairwise_bilateral((p["bi_xy_std"],) * 2, std, image, chdim=2)
        both = both[[1, 0, 2, 3, 4]]
        crf.addPairwiseEnergy(np.ascontiguousarray(grid), compat=3)
        crf.addPairwiseEnergy(both, compat=p["bi_w"], kernel=dcrf.FULL_KERNEL)
    else:
        crf = dcrf.DenseCRF2D(width, height, classes)
        crf.addPairwiseGaussian(sxy=p["pos_xy_std"], compat=3)
        crf.addPairwiseBilateral(sxy=p["bi_xy_std"], srgb=std, rgbim=image, compat=p["bi_w"])
    crf.setUnaryEnergy(unary)
    q = np.array(crf.inference(int(p["iter_max"])))
    assert q.shape == (classes, height * width)
    assert np.abs(q - TABLE["wide"].reshape(q.shape)).max() < 2e-4


def test_stepwise_inference() -> None:
    crf = dcrf.DenseCRF2D(W, H, C)
    crf.setUnaryEnergy(energies())
    crf.addPairwiseGaussian((3, 3), 3, dcrf.DIAG_KERNEL, dcrf.NORMALIZE_SYMMETRIC)
    crf.addPairwiseBilateral((40, 40), (13, 13, 13), picture(H, W), 4, dcrf.CONST_KERNEL)
    q, tmp1, tmp2 = crf.startInference()
    assert np.allclose(np.array(q).sum(0), 1, atol=1e-5)
    first = crf.klDivergence(q)
    for _ in range(5):
        crf.stepInference(q, tmp1, tmp2)
    assert crf.klDivergence(q) < first
    assert np.allclose(q, crf.inference(5), atol=2e-4)


def test_unary_objects_and_no_unary() -> None:
    crf = dcrf.DenseCRF(N, C)
    assert np.allclose(crf.inference(0), 1 / C)
    crf.setUnary(dcrf.ConstUnary(energies()))
    expected = crf.inference(0)
    weights, features = np.eye(C, dtype=np.float32), energies()
    crf.setUnaryEnergy(weights, features)
    assert np.allclose(crf.inference(0), expected)
    crf.setUnary(dcrf.LogisticUnary(weights, features))
    assert np.allclose(crf.inference(0), expected)


def test_impossible_labels() -> None:
    """-log of exact zeros: the others share the probability as without it; the limit of ever smaller ones."""
    p = np.random.default_rng(0).dirichlet(np.ones(C), N).T.astype(np.float32)
    p[0, ::3] = 0
    p /= p.sum(0)
    crf, limit = dcrf.DenseCRF2D(W, H, C), dcrf.DenseCRF2D(W, H, C)
    limit.setUnaryEnergy(utils.unary_from_softmax(p, clip=1e-30))
    with np.errstate(divide="ignore"):
        crf.setUnaryEnergy(-np.log(p))
    assert np.allclose(crf.inference(0), p, atol=1e-6)
    for each in (crf, limit):
        each.addPairwiseBilateral(20, 13, picture(H, W), 4)
    q = crf.inference(np.int64(5))
    assert np.allclose(q.sum(0), 1, atol=1e-4)
    assert q[0, ::3].max() < 1e-15
    assert np.allclose(q, limit.inference(5), atol=1e-4)


def test_compat_of_every_rank_has_pydensecrfs_sign() -> None:
    results = []
    features = utils.create_pairwise_gaussian((2, 2), (H, W))
    for compat in (3, np.full(C, -3, np.float32), -3 * np.eye(C, dtype=np.float32)):
        crf = dcrf.DenseCRF(N, C)
        crf.setUnaryEnergy(energies())
        crf.addPairwiseEnergy(features, compat, normalization=dcrf.NORMALIZE_AFTER)
        results.append(crf.inference(3))
    assert np.allclose(results[0], results[1], atol=2e-4)
    assert np.allclose(results[0], results[2], atol=2e-4)


@pytest.mark.parametrize("one", [np.array(3.0), torch.tensor(3.0), np.float32(3)])
def test_a_deviation_may_be_an_array_without_axes(one: Any) -> None:
    results = []
    for sxy in (3, one):
        crf = dcrf.DenseCRF2D(W, H, C)
        crf.setUnaryEnergy(energies())
        crf.addPairwiseGaussian(sxy, 3)
        results.append(crf.inference(2))
    assert np.array_equal(*results)


def test_an_infinite_deviation_leaves_its_axis_out() -> None:
    image, results = picture(H, W), []
    infinite, zero = dcrf.DenseCRF2D(W, H, C), dcrf.DenseCRF(N, C)
    infinite.addPairwiseBilateral(np.inf, 13, image, 4)
    colours = image.reshape(N, 3).T.astype(np.float32) / np.float32(13)
    zero.addPairwiseEnergy(np.concatenate([np.zeros((2, N), np.float32), colours]), 4)
    for crf in (infinite, zero):
        crf.setUnaryEnergy(energies())
        results.append(crf.inference(2))
    assert np.allclose(*results, atol=2e-4)


def test_half_precision_is_mixed_as_pydensecrf_does() -> None:
    """Scaled in float16, added in float64."""
    sm = probabilities(C, H, W).astype(np.float16)
    expected = -np.log((np.float16(0.9) * sm).astype(np.float64) + 0.1 / C).reshape(C, N)
    assert np.abs(utils.unary_from_softmax(sm, scale=0.9) - expected).max() < 1e-6


def test_utils() -> None:
    labels = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    u, p, n = 1 / 3, 0.8, 0.1
    expected = [[u, p, n, n, n, n, p, u], [u, n, p, n, n, p, n, u], [u, n, n, p, p, n, n, u]]
    assert np.allclose(np.exp(-utils.unary_from_labels(labels, 3, 0.8)), expected)
    assert np.allclose(np.exp(-utils.compute_unary(labels, 3, 0.8)), expected)
    assert np.allclose(
        np.exp(-utils.unary_from_labels(labels - 1 + (labels == 0), 3, 0.8, zero_unsure=False))[:, 1:7],
        np.array(expected)[:, 1:7],
    )
    sm = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert np.allclose(utils.unary_from_softmax(sm), -np.log(np.clip(sm, 1e-5, 1)))
    assert np.allclose(np.exp(-utils.unary_from_softmax(sm, scale=0.5)), [[0.25, 0.75], [0.75, 0.25]])
    assert np.allclose(np.exp(-utils.softmax_to_unary(sm + 0.1, 0.5)), (sm + 0.1) / 2 + 0.25)
    volume = utils.create_pairwise_bilateral((1, 2, 4), 5, np.ones((3, 4, 5)))
    assert volume.shape == (4, 60)
    assert volume.dtype == np.float32
    assert np.allclose(volume[:, -1], [2, 1.5, 1, 0.2])


def test_arrays_are_taken_as_they_are_at_the_call() -> None:
    """As pydensecrf does: what the caller writes into its arrays afterwards changes nothing."""
    grid, unary = utils.create_pairwise_gaussian((6, 6), (H, W)), energies()
    matrix = 1 - np.eye(C, dtype=np.float32)
    apart, reused = dcrf.DenseCRF(N, C), dcrf.DenseCRF(N, C)
    apart.setUnaryEnergy(unary)
    apart.addPairwiseEnergy(grid, 2.0)
    apart.addPairwiseEnergy(4 * grid, 2 * matrix)

    constant = dcrf.ConstUnary(unary)
    unary *= 0
    reused.setUnary(constant)
    reused.addPairwiseEnergy(grid, 2.0)
    grid *= 4
    matrix *= 2
    reused.addPairwiseEnergy(grid, matrix)
    grid *= 0
    matrix *= 0
    assert np.array_equal(reused.inference(3), apart.inference(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.setUnaryEnergy(np.ones((2, N), np.float32)), "Need"),
        (lambda d: d.setUnaryEnergy(np.ones((C, N))), "u: wanted a float32 array"),
        (lambda d: d.setUnaryEnergy(np.full((C, N), np.nan, np.float32)), "u: has NaN or -inf"),
        (lambda d: d.setUnaryEnergy(np.full((C, N), -np.inf, np.float32)), "u: has NaN or -inf"),
        (lambda d: d.addPairwiseGaussian(0, 3), "sxy: wanted"),
        (lambda d: d.addPairwiseGaussian(3, np.ones(2, np.float32)), "compat: wanted"),
        (lambda d: d.addPairwiseGaussian(3, np.array([1.0, 2.0, 3.0])), "compat: wanted a float32 array"),
        (lambda d: d.addPairwiseGaussian(3, 3, normalization=9), "normalization: wanted"),
        (lambda d: d.addPairwiseGaussian(3, 3, kernel=7), "kernel: wanted"),
        (lambda d: d.addPairwiseBilateral(3, (3, 3), picture(H, W), 3), "srgb: wanted one or 3"),
        (lambda d: d.addPairwiseBilateral(3, 3, picture(W, H), 3), "rgbim: wanted uint8"),
        (lambda d: d.addPairwiseEnergy(np.ones((2, 5), np.float32), 3), "features: Bad shape"),
        (
            lambda d: utils.unary_from_labels(np.array([4]), 3, 0.5),
            r"labels: wanted values 0\.\.3, got 4\.\.4",
        ),
        (lambda d: utils.unary_from_labels(np.array([1]), 3, 1.0), "gt_prob: wanted"),
        (lambda d: utils.unary_from_labels(np.array([1.7]), 3, 0.5), "labels: wanted integers, got float64"),
        (lambda d: utils.create_pairwise_bilateral((1, 1), 0, picture(H, W), 2), "schan: wanted one or 3"),
        (
            lambda d: utils.create_pairwise_bilateral((1, 1), (5, 5), picture(H, W), 2),
            "schan: wanted one or 3",
        ),
        (lambda d: utils.create_pairwise_bilateral((1, 1), (5,), picture(H, W), 2), "schan: wanted one or 3"),
        (lambda d: utils.create_pairwise_gaussian((1, -1), (H, W)), "sdims: wanted one or 2 positive"),
        (lambda d: d.addPairwiseGaussian(None, 3), "sxy: wanted one or 2 positive numbers, got None"),
        (lambda d: d.addPairwiseGaussian("33", 3), "sxy: wanted one or 2"),
        (lambda d: d.addPairwiseGaussian(torch.ones(2, requires_grad=True), 3), "sxy: wanted one or 2"),
        (lambda d: d.addPairwiseGaussian(3, 3, normalization=3.0), r"normalization: wanted .*, got 3\.0"),
        (lambda d: d.setUnaryEnergy(torch.ones(C, N, requires_grad=True)), "u: wanted .* Use tensor.detach"),
    ],
)
def test_bad_input_is_a_value_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(dcrf.DenseCRF2D(W, H, C))


def test_beside_pydensecrf() -> None:
    theirs = pytest.importorskip("pydensecrf.densecrf")
    results = []
    for module in (theirs, dcrf):
        crf = module.DenseCRF2D(W, H, C)
        crf.setUnaryEnergy(energies())
        crf.addPairwiseGaussian(2, np.array([-1, -2, -3], np.float32), normalization=module.NORMALIZE_BEFORE)
        matrix = np.array([[0, 2, 1], [1, 0, 3], [2, 2, 0]], np.float32)
        crf.addPairwiseBilateral(20, 15, picture(H, W), matrix, normalization=module.NO_NORMALIZATION)
        q = crf.startInference()[0]
        results.append((np.array(crf.inference(5)), crf.klDivergence(q)))
    assert np.abs(results[0][0] - results[1][0]).max() < 1e-4
    assert abs(results[0][1] - results[1][1]) < 1e-2
