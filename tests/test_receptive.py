"""The gradient maps against a closed form and finite differences; the theoretical field against where they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import atrous
from atrous.cli import main
from atrous.colours import as_seen
from atrous.config import Normalization
from atrous.heat_map import EFFECT, RAMP, STRIP, field_map, heat
from atrous.models import MODELS, create_model
from atrous.receptive import (
    estimate_batch_norms,
    gradient_map,
    measure,
    newly_initialised,
    normalised,
    read_pictures,
    side_of,
)


class Plain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.layers(x)}


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_uniform_convolutions_give_the_box_convolved_with_itself(depth: int) -> None:
    convs = [nn.Conv2d(3 if i == 0 else 1, 1, 3, padding=1, bias=False) for i in range(depth)]
    for conv in convs:
        nn.init.constant_(conv.weight, 1.0)
    found = gradient_map(Plain(*convs), noise(2, 3, 21, 17))
    row = np.ones(1)
    for _ in range(depth):
        row = np.convolve(row, np.ones(3))
    expected = np.zeros((21, 17))
    expected[10 - depth : 11 + depth, 8 - depth : 9 + depth] = 3 * np.outer(row, row)  # three colours
    assert np.array_equal(found, expected)


def test_side_of_a_square() -> None:
    """By hand: of a flat map of 21 x 21 a square of 2 r + 1 holds (2 r + 1)^2 / 441."""
    flat = np.ones((21, 21))
    assert side_of(flat, (10, 10)) == 21  # 19 hold 81.9 %
    assert side_of(flat, (10, 10), 0.5) == 15  # 225 of 441
    assert side_of(flat, (10, 10), 0.51) == 15
    assert side_of(flat, (10, 10), 0.52) == 17
    one = np.zeros((21, 21))
    one[4, 7] = 2
    assert side_of(one, (4, 7)) == 1
    assert side_of(one, (4, 4)) == 7
    y, x = np.mgrid[-100:101, -100:101] / 20  # a Gaussian: 95.45 % = erf(r / sqrt 2)^2 at r = 2.274 sigma
    assert side_of(np.exp(-(x**2 + y**2) / 2), (100, 100)) == pytest.approx(2 * 2.274 * 20, abs=2)


@pytest.mark.parametrize("name", ["deeplab_v2", "deeplab_v3"])
def test_against_finite_differences(name: str) -> None:
    """Atrous rates and image pooling: every colour of some pixels, moved a little up and down."""
    model = create_model(name, "mobilenet_v2", num_classes=3, width=0.25, output_stride=16)
    pictures = noise(2, 3, 49, 41, dtype=torch.float64)
    estimate_batch_norms(model.double(), pictures)
    found = gradient_map(model, pictures)
    rng = np.random.default_rng(0)
    points = [(24, 20), *zip(rng.integers(0, 49, 12), rng.integers(0, 41, 12), strict=True)]
    step = 1e-6
    for y, x in points:
        slopes = []
        for picture in pictures:
            moved = picture.repeat(6, 1, 1, 1)
            for colour in range(3):
                moved[colour, colour, y, x] += step
                moved[3 + colour, colour, y, x] -= step
            with torch.no_grad():
                out = model.scores(moved)["out"]
            centre = out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum(1)
            slopes.append(((centre[:3] - centre[3:]) / (2 * step)).abs().sum())
        assert found[y, x] == pytest.approx(float(sum(slopes)) / 2, rel=1e-4, abs=1e-9)


SMALL: dict[str, dict[str, Any]] = {  # so that the field lies within a small picture
    "deeplab_v1": {"fc6_rate": 2},
    "deeplab_v2": {"atrous_rates": (1, 2)},
    "pspnet": {},
    "deeplab_v3": {"atrous_rates": (1, 2)},
    "deeplab_v3plus": {"atrous_rates": (1,)},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_field_of_every_paper_is_the_theoretical_one(name: str) -> None:
    """Zero beyond it unless pools over the whole picture reach there, and not much smaller than it.

    The gradient reaches the rim only where every unit of a path is awake, and maxima let one way through: the side of
    what it reaches is at most the theoretical one, and here at least nine tenths of it. v3+ resizes by exactly two at
    an even size, and its fine grid lies a part of a coarse step beside the coarse one.
    """
    size, shift = (576, 8) if name == "deeplab_v3plus" else (577, 0)
    pictures = noise(2, 3, size, size)
    config = create_model(
        name, "mobilenet_v2", num_classes=2, width=0.25, output_stride=8, **SMALL[name]
    ).config
    fields = measure(newly_initialised(config, pictures), pictures, "random")
    assert [field.pools for field in fields] == (
        [False] if name in ("deeplab_v1", "deeplab_v2") else [True, False]
    )
    local = fields[-1]
    assert local.centre == (288, 288)
    assert local.deepest < size
    for axis in (0, 1):
        reached = local.gradient.sum(axis).nonzero()[0]
        assert max(288 - reached[0], reached[-1] - 288) <= local.deepest // 2 + shift
        assert 0.9 * local.deepest <= reached[-1] - reached[0] + 1 <= local.deepest
    assert local.gradient[288, 288] > 0
    assert local.effective <= local.theoretical == local.deepest
    if len(fields) == 2:
        whole = fields[0]
        assert (whole.gradient[[0, -1]] > 0).mean() > 0.9
        assert whole.effective > local.effective
        assert whole.theoretical == size


def test_estimated_batch_norms_are_those_of_the_pictures() -> None:
    norm = nn.BatchNorm2d(3)
    model = Plain(norm)
    pictures = 4 * noise(5, 3, 9, 7) + 2
    estimate_batch_norms(model, pictures)
    values = pictures.transpose(0, 1).reshape(3, -1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, values.mean(1))
    torch.testing.assert_close(norm.running_var, values.var(1))
    assert norm.momentum == 0.1
    assert not norm.training


def test_the_model_stays_as_it_is() -> None:
    model = create_model("deeplab_v3", "mobilenet_v2", width=0.25).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradient_map(model, noise(1, 3, 33, 33))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_no_gradient_is_said() -> None:
    conv = nn.Conv2d(3, 2, 3, padding=1)
    nn.init.zeros_(conv.weight)
    with pytest.raises(atrous.InputError, match="no gradient"):
        gradient_map(Plain(conv), noise(1, 3, 9, 9))


def test_the_ramp_rises_in_even_steps_of_lightness() -> None:
    lightness = as_seen(RAMP)[0, :, 0]
    assert np.allclose(np.diff(lightness), 0.8 / 6, atol=0.004)
    picture = heat(np.array([[0.0, 0.25, 1.0]]))
    assert np.array_equal(picture[0, [0, 2]], RAMP[[0, -1]])
    assert np.array_equal(picture[0, 1], RAMP[3])  # the square root of a quarter is the middle


def test_boxes_lie_where_they_should() -> None:
    values = np.zeros((101, 101))
    values[50, 50] = 1
    drawn = field_map(values, (50, 50), theoretical=500, effective=21, height=404)
    blue = (drawn == EFFECT).all(-1)
    upper = np.argwhere(blue[:404])  # the words lie below
    assert tuple(upper.min(0)) == (160, 160)  # 4 x (50.5 - 10.5)
    assert tuple(upper.max(0)) == (243, 243)  # 4 x (50.5 + 10.5) - 1


def test_pictures_are_cut_to_the_size(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    (found,) = read_pictures([tmp_path], (20, 20), 1)
    assert np.array_equal(found, pixels[:, 20:40])
    values = normalised([found], Normalization(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0)))
    assert values.shape == (1, 3, 20, 20)
    assert values[0, :, 3, 5].tolist() == [1.0, -0.5, 0.0]


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "info box --receptive-field --size 65 --limit 2".split()
    main(words)
    printed = capsys.readouterr().out
    model = atrous.load("box")
    scenes = atrous.open_dataset("scenes", split="test", size=(65, 65))
    pictures = normalised([scenes.image(i) for i in range(2)], model.metadata.normalization)
    for field in measure(model, pictures):
        (line,) = [
            line
            for line in printed.splitlines()
            if "trained" in line and ("without" in line) is not field.pools
        ]
        assert f" {field.effective} px" in line
        assert f" {field.effective / field.theoretical:.1%}" in line
        assert f" {field.half} px" in line
    assert [path.name for path in tmp_path.iterdir()] == ["box_receptive_field.png"]
    with Image.open("box_receptive_field.png") as picture:
        assert picture.size == (3 * 8 + 2 * 300, 30 + 300 + STRIP + 8)  # random and trained

    before = (tmp_path / "box_receptive_field.png").read_bytes()
    with pytest.raises(SystemExit):
        main(words)
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "box_receptive_field.png").read_bytes() == before
    main([*words, "--overwrite"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("box --out a.png", "--out goes with --receptive_field"),
        ("box --limit 2", "--limit goes with --receptive_field"),
        ("box --receptive_field --out a.pdf", "ends in .png or .jpg"),
        ("box --receptive_field --data gone", "gone: no such picture or folder"),
        ("box --receptive_field --limit 0", "--limit and --size must be at least 1"),
        ("box --receptive_field --size 16", "at least 32x32 are needed"),
        ("deeplab_v4 --receptive_field", "unknown model 'deeplab_v4'"),
        ("deeplab_v3 --backbone mobilenet_v2 --in_channels 4 --receptive_field", "4 channels"),
    ],
)
def test_one_line_says_what_is_wrong(
    words: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["info", *words.split()])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
