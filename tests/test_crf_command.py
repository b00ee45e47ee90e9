"""The dense CRF behind `Predictor(crf=...)`, `--crf` and `atrous crf`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous.cli import main
from atrous.errors import InputError
from atrous.predict import Predictor, make_crf, refine_file


def square(size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on dark ground, and labels of it that lie two pixels off."""
    image = np.full((size, size, 3), 40, np.uint8)
    image[6:18, 6:18] = 220
    labels = np.zeros((size, size), np.uint8)
    labels[8:20, 8:20] = 1
    return image, labels


def test_predictor_refines_what_the_network_says(scene_checkpoint: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    options = {"iter_max": 3, "bi_rgb_std": 20.0}
    plain = Predictor(scene_checkpoint).predict(image, probabilities=True).probabilities
    refined = Predictor(scene_checkpoint, crf=options).predict(image, probabilities=True).probabilities
    expected = atrous.DenseCRF(iter_max=3, bi_rgb_std=20.0)(image, plain)
    np.testing.assert_allclose(refined, expected, atol=1e-5)
    assert np.abs(refined - plain).max() > 0.01


def test_unknown_parameter() -> None:
    with pytest.raises(InputError, match="did you mean 'bi_w'"):
        make_crf({"bi_ww": 1})


def test_iterations_are_a_whole_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_crf({"iter_max": 3.0}).iter_max == 3
    image, labels = square()
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "l.png")
    pictures = [str(tmp_path / "a.png"), str(tmp_path / "l.png"), "--out", str(tmp_path / "out")]
    for given, shown in (("2.5", "2.5"), ("1e400", "inf")):
        with pytest.raises(SystemExit) as stop:
            main(["crf", *pictures, "--crf_options", f'{{"iter_max": {given}}}'])
        assert stop.value.code == 2
        assert f"iter_max: wanted a whole number >= 0, got {shown}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_command_moves_labels_to_the_edges_of_the_picture(kind: str, tmp_path: Path) -> None:
    image, labels = square()
    Image.fromarray(image).save(tmp_path / "a.png")
    if kind == "labels":
        scores = tmp_path / "labels.png"
        Image.fromarray(labels).save(scores)
    else:
        scores = tmp_path / "scores.npy"
        np.save(scores, np.where(np.arange(2)[:, None, None] == labels, 0.7, 0.3).astype(np.float32))
    out = tmp_path / "out"
    options = ["--crf_options.bi_rgb_std", "20", "--crf_options.bi_xy_std", "10"]
    main(["crf", str(tmp_path / "a.png"), str(scores), "--out", str(out), "--probabilities", *options])
    with Image.open(out / "a.png") as result:
        refined = np.asarray(result)
    truth = image[..., 0] > 100
    assert (labels != truth).sum() == 88
    assert (refined != truth).sum() < 10
    probabilities = np.load(out / "a_probabilities.npy")
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
    np.testing.assert_array_equal(probabilities.argmax(0), refined)


@pytest.mark.parametrize("other", [1, 255, 299])
def test_what_16_bits_leave_open(tmp_path: Path, other: int) -> None:
    """65535 is "unsure" in any labels of 16 bits; 255 is so too, unless there is a class beyond."""
    image, square_labels = square()
    labels = np.where(square_labels == 1, other, 0).astype(np.uint16)
    labels[0, 0], labels[2:5, 3:9], labels[20:, 20:] = 299 if other == 255 else other, 65535, 255
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    crf = atrous.DenseCRF(iter_max=2, bi_rgb_std=20.0)
    _, found = refine_file(tmp_path / "a.png", tmp_path / "labels.png", crf, 0.7, probabilities=True)
    classes = int(labels[labels < 65535].max()) + 1 if other > 1 else 2
    scores = np.full((classes, *labels.shape), 0.3 / (classes - 1))
    np.put_along_axis(scores, np.minimum(labels, classes - 1)[None].astype(int), 0.7, axis=0)
    scores[:, (labels == 65535) | ((labels == 255) & (other == 1))] = 1 / classes
    expected = crf.infer(image, torch.from_numpy(-np.log(scores)).float()).numpy()
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_scores_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, labels = square()
    Image.fromarray(image).save(tmp_path / "a.png")
    np.save(tmp_path / "s.npy", np.full((2, 9, 9), 0.5, np.float32))
    Image.fromarray(labels[:9]).save(tmp_path / "l.png")
    (tmp_path / "t.npy").write_text("text")
    for name, message in (("s.npy", "(C, 24, 24)"), ("l.png", "(9, 24)"), ("t.npy", "not a readable .npy")):
        with pytest.raises(SystemExit) as stop:
            main(["crf", str(tmp_path / "a.png"), str(tmp_path / name), "--out", str(tmp_path / "out")])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert name in error
    assert not (tmp_path / "out").exists()
