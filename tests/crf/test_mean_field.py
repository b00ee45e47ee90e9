from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import CASES, brute_force, gaussian, mostly_dead, picture, probabilities, softmax

from atrous.crf import (
    CRFLayer,
    DenseCRF,
    MeanField,
    Pairwise,
    bilateral_features,
    fast,
    map_labels,
    position_features,
    unary_from_labels,
)
from atrous.crf.unary import unary_from_logits, unary_from_probabilities
from atrous.errors import InputError

TABLE = np.load(Path(__file__).with_name("pydensecrf.npz"))
H, W = 12, 16


def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "available", lambda: False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [True, False])
def test_answers_are_pydensecrfs(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        plain_torch(monkeypatch)
    height, width, classes, parameters = CASES[name]
    q = DenseCRF(**parameters)(picture(height, width), probabilities(classes, height, width))  # type: ignore[arg-type]
    assert q.dtype == np.float32
    assert np.abs(q - TABLE[name]).max() < (2e-4 if compiled else 2e-5)
    assert np.array_equal(q.argmax(0), TABLE[name].argmax(0))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] < 100])
def test_error_against_brute_force_is_no_larger_than_pydensecrfs(name: str) -> None:
    height, width, classes, parameters = CASES[name]
    image, p = picture(height, width), probabilities(classes, height, width)
    q = DenseCRF(**parameters)(image, p)  # type: ignore[arg-type]
    assert np.abs(q - brute_force(image, p, parameters)).max() <= TABLE[f"{name}/error"] + 1e-4


@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
def test_compiled_equals_torch_for_every_normalization(
    normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(1)
    unary = torch.rand(9, 400) * 3
    scale = 0.02 if normalization == "none" else 1.0
    kinds = ((3, 2.0), (1, 0.7), (4, 1.5))
    terms = [Pairwise(torch.rand(d, 400) * 6, w * scale, normalization) for d, w in kinds]
    assert MeanField(unary, terms).compiled is not None
    compiled = MeanField(unary, terms).run(6)
    plain_torch(monkeypatch)
    assert torch.allclose(compiled, MeanField(unary, terms).run(6), atol=2e-4)


def test_energies_too_large_for_two_bytes_are_left_to_torch() -> None:
    pytest.importorskip("numba")
    features = torch.rand(2, 400) * 3
    assert MeanField(torch.rand(3, 400), [Pairwise(features, 5.0, "none")]).compiled is None
    assert MeanField(torch.rand(3, 400), [Pairwise(features, 5.0)]).compiled is not None


@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
def test_normalization_against_its_definition(normalization: str) -> None:
    term = Pairwise(torch.rand(2, 50) * 4, 1.0, normalization)
    kernel = term.lattice.filter(torch.eye(50, dtype=torch.float64))
    norm = kernel.sum(1)
    expected = {
        "none": kernel,
        "before": kernel / norm[None],
        "after": kernel / norm[:, None],
        "symmetric": kernel / norm[:, None].sqrt() / norm[None].sqrt(),
    }[normalization]
    assert torch.allclose(term.filter(torch.eye(50, dtype=torch.float64)), expected, atol=1e-12)


def test_vector_and_matrix_compatibility() -> None:
    unary, features = torch.rand(4, 60, dtype=torch.float64), torch.rand(2, 60) * 4
    potts = MeanField(unary, [Pairwise(features, 2.0)]).run(4)
    vector = MeanField(unary, [Pairwise(features, torch.full((4,), 2.0))]).run(4)
    matrix = MeanField(unary, [Pairwise(features, 2.0 * (1 - torch.eye(4)))]).run(4)
    # w [a != b] = w - w [a = b], and the row sums of the kernel, times w, are the same for all labels
    assert torch.allclose(potts, vector, atol=1e-12)
    assert torch.allclose(potts, matrix, atol=1e-12)
    mu = torch.rand(4, 4, dtype=torch.float64)
    term = Pairwise(features, mu)
    q = MeanField(unary, [term]).start()
    logits = -unary - mu @ term.filter(q.T.contiguous()).T
    assert torch.allclose(MeanField(unary, [term]).step(q), torch.softmax(logits, 0), atol=1e-12)


@pytest.mark.parametrize("classes", [3, 21, 40])
@pytest.mark.parametrize("kind", ["Potts", "attractive", "vector", "matrix"])
def test_compiled_equals_torch_for_every_compatibility(kind: str, classes: int) -> None:
    pytest.importorskip("numba")
    matrix = 3 * torch.rand(classes, classes)
    mu = {"Potts": torch.tensor(4.0), "attractive": torch.tensor(-0.5), "vector": 4 * torch.rand(classes),
          "matrix": matrix + matrix.T}[kind]  # fmt: skip
    unary = -torch.from_numpy(probabilities(classes, H, W)).clamp(min=1e-5).log().flatten(1)
    features = [position_features((H, W), 3), bilateral_features(torch.from_numpy(picture(H, W)), 30, 13)]
    terms = [Pairwise(f, c) for f, c in zip(features, (torch.tensor(2.0), mu), strict=True)]
    compiled = MeanField(unary, terms)
    exact = MeanField(unary.double(), [Pairwise(t.features, t.compatibility.double()) for t in terms])
    assert compiled.compiled is not None
    q = compiled.run(5)
    assert float((q - exact.run(5)).abs().max()) < 1e-4
    divergence = float(exact.kl_divergence(q.double()))
    assert float(compiled.kl_divergence(q)) == pytest.approx(divergence, rel=1e-4)


def test_three_dimensional_volume_and_user_features() -> None:
    depth = torch.linspace(0, 1, 5 * 6 * 7)[None] * 3
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in (5, 6, 7)), indexing="ij")).flatten(1)
    unary = torch.rand(3, 5 * 6 * 7)
    q = MeanField(unary, [Pairwise(grid, 2.0), Pairwise(torch.cat([grid / 3, depth]), 1.0)]).run(5)
    kernels = []
    for features in (grid, torch.cat([grid / 3, depth])):
        k = gaussian(features.numpy())
        norm = k.sum(1) ** -0.5
        kernels.append(norm[:, None] * k * norm)
    exact = softmax(-unary.numpy().astype(np.float64))
    for _ in range(5):
        exact = softmax(-unary.numpy() + exact @ (2 * kernels[0] + kernels[1]))
    assert np.abs(q.numpy() - exact).mean() < 0.02


def test_steps_are_the_run_and_lower_the_divergence() -> None:
    image, p = picture(H, W), probabilities(4, H, W)
    unary = unary_from_probabilities(torch.from_numpy(p)).flatten(1)
    from atrous.crf import bilateral_features, position_features

    terms = [
        Pairwise(position_features((H, W), 2.0), 1.0),
        Pairwise(bilateral_features(torch.from_numpy(image), 10, 20), 1.0),
    ]
    model = MeanField(unary, terms)
    q, divergences = model.start(), []
    for _ in range(5):
        divergences.append(float(model.kl_divergence(q)))
        q = model.step(q)
    assert torch.allclose(q, model.run(5), atol=2e-4)
    assert divergences == sorted(divergences, reverse=True)
    assert torch.equal(map_labels(q), q.argmax(0))


def test_gradients_reach_unaries_weights_and_compatibility() -> None:
    features = [torch.rand(2, 14) * 4, torch.rand(5, 14) * 2]
    mu = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    unary = torch.rand(3, 14, dtype=torch.float64, requires_grad=True)

    def run(unary: torch.Tensor, weight: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
        return MeanField(unary, [Pairwise(features[0], weight), Pairwise(features[1], mu)]).run(3)

    assert torch.autograd.gradcheck(run, (unary, weight, mu))


def test_dense_crf_differentiates_and_agrees_with_the_compiled_code() -> None:
    image, p = torch.from_numpy(picture(H, W)), torch.from_numpy(probabilities(3, H, W))
    weight = torch.tensor(4.0, requires_grad=True)
    q = DenseCRF(iter_max=4, bi_w=weight)(image, p.clone().requires_grad_())
    q[0].sum().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs()) > 0
    assert torch.allclose(q.detach(), DenseCRF(iter_max=4)(image, p), atol=2e-4)


def test_layer_learns() -> None:
    image = torch.from_numpy(np.stack([picture(H, W)] * 2))
    target = (image[..., 0] > 150).long()
    layer = CRFLayer(iter_max=3, num_classes=2)
    logits = torch.randn(2, 2, H, W, requires_grad=True)
    optimizer = torch.optim.SGD([*layer.parameters(), logits], lr=0.5)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.nll_loss(layer(image, logits), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] * 0.9
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_batch_is_its_pictures() -> None:
    images = np.stack([picture(H, W), picture(H, W)[::-1]])
    p = np.stack([probabilities(3, H, W), probabilities(3, H, W)[::-1]])
    q = DenseCRF(iter_max=2)(torch.from_numpy(images), torch.from_numpy(p))
    assert isinstance(q, torch.Tensor)
    for k in range(2):
        one = DenseCRF(iter_max=2)(np.ascontiguousarray(images[k]), p[k])
        assert np.array_equal(q[k].numpy(), one)


def test_same_for_any_number_of_threads() -> None:
    image, p = picture(70, 131), probabilities(21, 70, 131)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(DenseCRF()(image, p))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_kept_position_kernel_gives_the_same_answer() -> None:
    p = probabilities(4, 30, 41)
    first = DenseCRF()(picture(30, 41), p)
    DenseCRF(pos_xy_std=2)(picture(41, 30), probabilities(4, 41, 30))
    DenseCRF(pos_xy_std=2)(picture(30, 41), p)
    for _ in range(2):
        assert np.array_equal(DenseCRF()(picture(30, 41), p), first)


def test_a_kept_kernel_that_was_replaced_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What three threads may do: one has fetched the kept kernel, another uses it too, a third puts its own there."""
    pytest.importorskip("numba")
    from atrous.crf import stack

    crf, fetch = DenseCRF(2), stack._layer
    same, other = [(picture(h, w), probabilities(4, h, w)) for h, w in ((30, 41), (41, 30))]
    expected = crf(*same)
    meanwhile = [same, other]

    def interrupted(term: fast.Term, *rest: Any) -> stack.Layer:
        layer = fetch(term, *rest)
        if term.name and meanwhile:
            crf(*meanwhile.pop(0))
        return layer

    monkeypatch.setattr(stack, "_layer", interrupted)
    assert np.array_equal(crf(*same), expected)
    assert not meanwhile


@pytest.mark.parametrize("classes", [21, 150])
def test_classes_left_out_stay_within_the_bound(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, p = picture(40, 56), mostly_dead(classes, 40, 56)
    unary = unary_from_probabilities(torch.from_numpy(p))
    quick = DenseCRF().infer(image, unary).numpy()
    monkeypatch.setattr(fast, "TOLERANCE", 0.0)
    full = DenseCRF().infer(image, unary).numpy()
    alive, dead = fast.split_classes(p.reshape(classes, -1).max(1), 10.0)
    assert len(dead) == 0
    monkeypatch.undo()
    alive, dead = fast.split_classes(p.reshape(classes, -1).max(1), 10.0)
    assert alive.tolist() == [0, 1, 2]
    assert np.abs(quick - full).max() < 1e-3
    assert np.array_equal(quick.argmax(0), full.argmax(0))
    assert np.allclose(quick.sum(0), 1, atol=1e-5)


def test_a_class_that_could_come_alive_is_not_left_out() -> None:
    largest = np.array([0.9, 0.5, 2e-2, 1e-6], np.float32)
    alive, dead = fast.split_classes(largest, 7.0)
    assert alive.tolist() == [0, 1, 2]
    assert dead.tolist() == [3]
    assert fast.split_classes(largest[:1], 7.0)[0].tolist() == [0]


def test_certain_scores_do_not_become_denormal() -> None:
    image, p = picture(H, W), np.zeros((3, H, W), np.float32)
    p[0] = 1
    p[:, :, W // 2 :] = p[[1, 0, 2]][:, :, W // 2 :]
    unary = torch.from_numpy(np.where(p > 0, 0, 300).astype(np.float32))  # e^-300 is no float32
    for q in (DenseCRF().infer(image, unary).numpy(), DenseCRF()(image, p)):
        tiny = (q > 0) & (q < np.finfo(np.float32).tiny)
        assert not tiny.any()
        assert np.array_equal(q.argmax(0), p.argmax(0))


@pytest.mark.parametrize(
    ("classes", "height", "width"), [(1, 5, 6), (3, 1, 1), (1, 1, 1), (2, 1, 9), (40, 7, 1)]
)
def test_small_inputs(classes: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, p = picture(height, width), probabilities(classes, height, width)
    q = DenseCRF()(image, p)
    plain_torch(monkeypatch)
    assert np.allclose(q, DenseCRF()(image, p), atol=2e-4)
    if height * width == 1:  # symmetric normalisation: the only message comes from the pixel itself
        exact = brute_force(image, p, {})
        assert np.allclose(q, exact, atol=1e-3)


def test_no_iterations_and_no_terms_give_the_classifier_back() -> None:
    image, p = picture(H, W), probabilities(3, H, W)
    assert np.allclose(DenseCRF(iter_max=0)(image, p), p, atol=1e-4)
    assert np.allclose(DenseCRF(pos_w=0, bi_w=0)(image, p), p, atol=1e-4)


def test_layouts_and_dtypes_of_the_input_do_not_matter() -> None:
    image, p = picture(H, W), probabilities(3, H, W)
    expected = DenseCRF(iter_max=2)(image, p)
    strided = np.ascontiguousarray(p.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert np.array_equal(DenseCRF(iter_max=2)(image[:, ::-1][:, ::-1], strided), expected)
    double = DenseCRF(iter_max=2)(image, p.astype(np.float64))
    assert double.dtype == np.float32
    assert np.array_equal(double, expected)
    assert np.allclose(DenseCRF(iter_max=2)(image, p.astype(">f4")), expected)
    half = DenseCRF(iter_max=2)(torch.from_numpy(image), torch.from_numpy(p).half())
    assert half.dtype == torch.float32
    assert np.abs(half.numpy() - expected).max() < 0.02
    read_only = p.copy()
    read_only.setflags(write=False)
    assert np.array_equal(DenseCRF(iter_max=2)(image, read_only), expected)


def test_iterations_of_numpy_are_whole_numbers() -> None:
    image, p = picture(H, W), probabilities(3, H, W)
    assert np.array_equal(DenseCRF(iter_max=np.int64(3))(image, p), DenseCRF(iter_max=3)(image, p))  # type: ignore[arg-type]


def test_unaries() -> None:
    labels = torch.tensor([[0, 2], [255, 1]])
    energy = unary_from_labels(labels, 3, 0.8)
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [1 / 3] * 3, [0.1, 0.8, 0.1]]).T
    assert torch.allclose((-energy).exp().flatten(1), expected)
    logits = torch.randn(2, 3, 4)
    assert torch.allclose((-unary_from_logits(logits, 1)).exp(), logits.softmax(1))
    assert torch.equal(unary_from_probabilities(torch.tensor([0.0])), -torch.log(torch.tensor([1e-5])))
    with pytest.raises(InputError, match=r"labels: 7 is out of range, wanted 0\.\.2"):
        unary_from_labels(torch.tensor([7]), 3)
    with pytest.raises(InputError, match="labels: wanted integers"):
        unary_from_labels(torch.rand(3), 3)
    with pytest.raises(InputError, match="confidence: wanted a number between"):
        unary_from_labels(labels, 3, 1.0)
