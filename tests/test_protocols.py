"""Presets, who is heard first, output strides at test time, and the equalities between protocols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import atrous
from atrous.checkpoint import Metadata, metadata_of
from atrous.config import Normalization, Protocol
from atrous.data import SCENES
from atrous.errors import InputError
from atrous.models import MODELS, at_output_stride
from atrous.predict import Predictor
from atrous.protocols import settle
from atrous.tiling import slide

SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Random weights whose scores differ from place to place and depend on the deep layers too."""
    torch.manual_seed(0)
    model = atrous.create_model("deeplab_v3plus", "mobilenet_v2", 9, width=0.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 96, 96))  # statistics, so that nothing fades on the way
        model.classifier.weight.mul_(10)
    model.metadata = Metadata(SCENES)
    return model.eval()


def scores(model: torch.nn.Module, image: np.ndarray, **settings: Any) -> np.ndarray:
    return Predictor(model, **settings).predict(image, probabilities=True).probabilities


# Presets


def test_v3_is_stride_8_six_scales_and_flip() -> None:
    for name in ("v3", "v3plus"):
        found = settle(Protocol("resize", (5, 5), crf={"bi_w": 3.0}, average="logits"), name)
        assert found == Protocol("direct", (5, 5), None, SIX, True, None, output_stride=8)
        assert str(found) == (
            "direct, output stride 8, scales 0.5 0.75 1 1.25 1.5 1.75, with flip, mean of probabilities"
        )


def test_v1_and_v2_end_with_the_crf_that_was_searched() -> None:
    searched = Protocol(scales=SIX, flip=True, crf={"bi_w": 7.0})
    for name in ("v1", "v2"):
        assert settle(searched, name) == Protocol(crf={"bi_w": 7.0}, output_stride=8)
        assert settle(Protocol(), name) == Protocol(crf={}, output_stride=8)


def test_pspnet_slides_windows_of_the_training_crop() -> None:
    wanted = Protocol("slide", (713, 713), 2048, SIX, True, None, 1 / 3, output_stride=8)
    assert settle(Protocol("slide", (713, 713), 2048), "pspnet") == wanted
    assert settle(Protocol(), "pspnet", window=(97, 97)).size == (97, 97)
    assert settle(Protocol(), "pspnet").size == (473, 473)


def test_given_wins_over_preset_and_preset_over_checkpoint() -> None:
    checkpoint = Protocol("slide", (33, 33), longer_side=500, flip=True, overlap=0.5)
    found = settle(checkpoint, "v3", {"scales": (1.0,), "output_stride": 16, "crf": True, "mode": None})
    assert found == Protocol("direct", (33, 33), 500, (1.0,), True, {}, 0.5, "probabilities", 16)
    assert settle(checkpoint, "plain", {"longer_side": 0}) == Protocol("direct", (33, 33), overlap=0.5)
    assert settle(checkpoint) == checkpoint
    with pytest.raises(InputError, match=r"unknown protocol 'v3\+': did you mean 'v3'"):
        settle(checkpoint, "v3+")


def test_a_predictor_takes_the_training_crop_as_window(model: torch.nn.Module) -> None:
    other = atrous.models.build_model(model.config)
    other.metadata = Metadata(SCENES, recipe={"crop_size": [48, 64]})
    assert Predictor(other, mode="slide").protocol.size == (48, 64)
    with pytest.raises(InputError, match="mode 'slide' needs a size"):
        Predictor(model, mode="slide")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1.0}, r"overlap 1\.0 must be a share"),
        ({"overlap": -0.1}, r"overlap -0\.1 must"),
        ({"average": "maximum"}, "unknown average 'maximum'"),
        ({"output_stride": 0}, "output_stride 0 must be at least 1"),
        ({"scales": (float("nan"),)}, "positive"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Protocol(**settings)


# Output stride at test time: v1's "hole" algorithm says that a dense grid holds the coarse one


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("options", [{}, {"atrous_rates": (3, 5)}])
def test_every_other_point_of_the_denser_grid_is_the_coarser_one(backbone: str, options: dict) -> None:
    coarse = atrous.create_model("deeplab_v2", backbone, 4, output_stride=16, **options).eval()
    dense = at_output_stride(coarse, 8)
    x = torch.randn(1, 3, 97, 161)
    with torch.no_grad():
        expected, found = coarse.scores(x)["out"], dense.scores(x)["out"]
    assert found.shape[-2:] == (13, 21)
    torch.testing.assert_close(found[..., ::2, ::2], expected, rtol=1e-4, atol=1e-5)
    assert at_output_stride(dense, 16).config == coarse.config


EACH = [(name, "resnet18", {}) for name in MODELS] + [
    ("deeplab_v1", "vgg16", {"msc": True, "fc_channels": 64}),
    ("deeplab_v3", "resnet18", {"form": "cascade"}),
    ("deeplab_v3", "mobilenet_v3_large", {"atrous_rates": ()}),
    ("deeplab_v3plus", "legacy_xception", {"separable": True}),
    ("pspnet", "timm:regnety_002", {}),
]


@pytest.mark.parametrize(("name", "backbone", "options"), EACH)
def test_every_model_keeps_its_weights(name: str, backbone: str, options: dict[str, Any]) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    model = atrous.create_model(name, backbone, 3, output_stride=16, **options)
    model.metadata = Metadata(SCENES)
    other = at_output_stride(model, 8)
    assert (other.config.output_stride, other.backbone.output_stride) == (8, 8)
    assert metadata_of(other) is metadata_of(model)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    assert at_output_stride(model, 16) is model


def test_a_stride_that_cannot_be_had() -> None:
    with pytest.raises(InputError, match="a DRN keeps stride 8"):
        at_output_stride(atrous.create_model("deeplab_v3", "drn_d_22", 3, output_stride=8), 16)
    with pytest.raises(InputError, match="output_stride=5 cannot be had"):
        at_output_stride(atrous.create_model("deeplab_v3", "resnet18", 3), 5)


def test_a_predictor_at_another_stride_is_the_model_built_at_it(model: torch.nn.Module) -> None:
    image = picture(48, 64)
    dense = atrous.create_model("deeplab_v3plus", "mobilenet_v2", 9, output_stride=8, width=0.5)
    dense.load_state_dict(model.state_dict())
    dense.metadata = metadata_of(model)
    assert dense.aspp.branches[1][0].dilation == (12, 12)
    expected = scores(dense, image)
    np.testing.assert_array_equal(scores(model, image, output_stride=8), expected)
    assert np.abs(scores(model, image) - expected).max() > 0.1


# Equalities


def test_slide_with_one_window_is_direct_whatever_the_overlap(model: torch.nn.Module) -> None:
    image = picture(48, 64)
    direct = scores(model, image)
    for overlap in (0.0, 0.9):
        found = scores(model, image, mode="slide", size=(48, 64), overlap=overlap)
        np.testing.assert_allclose(found, direct, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
def test_overlap_add_of_a_constant_scorer_is_constant(overlap: float) -> None:
    constant = torch.tensor([0.2, 0.7, 0.1]).view(1, 3, 1, 1)
    for height, width in ((1, 1), (7, 50), (64, 33), (100, 101)):
        found = slide(
            lambda x: constant.expand(len(x), 3, *x.shape[-2:]),
            torch.zeros(2, 3, height, width),
            (16, 24),
            overlap,
        )
        torch.testing.assert_close(found, constant.expand(2, 3, height, width))


def test_overlap_is_a_setting_that_counts(model: torch.nn.Module) -> None:
    """Windows by hand: 32 wide on 64 pixels; half a window of overlap puts one in the middle."""
    image = picture(32, 64)
    left, middle, right = (scores(model, image[:, x : x + 32]) for x in (0, 16, 32))
    apart = scores(model, image, mode="slide", size=(32, 32), overlap=0.0)
    np.testing.assert_allclose(apart, np.concatenate([left, right], 2), atol=1e-6)
    half = scores(model, image, mode="slide", size=(32, 32), overlap=0.5)
    np.testing.assert_allclose(half[..., 16:32], (left[..., 16:] + middle[..., :16]) / 2, atol=1e-6)
    np.testing.assert_allclose(half[..., 32:48], (right[..., :16] + middle[..., 16:]) / 2, atol=1e-6)
    np.testing.assert_allclose(half[..., :16], left[..., :16], atol=1e-6)


ANY = [
    {"mode": "slide", "size": (32, 40), "overlap": 0.4},
    {"mode": "resize", "size": (48, 48)},
    {"scales": (0.5, 1.0), "average": "logits"},
    {"scales": (0.75, 1.25), "longer_side": 48, "output_stride": 8},
    {"mode": "slide", "size": (32, 32), "scales": (0.5, 1.5), "average": "logits"},
]


@pytest.mark.parametrize("settings", ANY, ids=str)
def test_flip_of_a_flipped_picture(model: torch.nn.Module, settings: dict[str, Any]) -> None:
    image = picture(37, 64)
    straight = scores(model, image, flip=True, **settings)
    mirrored = scores(model, image[:, ::-1], flip=True, **settings)
    np.testing.assert_allclose(straight, mirrored[..., ::-1], atol=1e-4)
    np.testing.assert_allclose(straight.sum(0), 1, atol=1e-5)


def test_direct_on_a_padded_picture_cropped_back(model: torch.nn.Module) -> None:
    """Padded with the mean colour, which is one of 8 bits here."""
    other = atrous.models.build_model(model.config).eval()
    other.load_state_dict(model.state_dict())
    other.metadata = Metadata(SCENES, Normalization((128 / 255,) * 3, (0.25,) * 3))
    image, padded = picture(33, 50), np.full((48, 64, 3), 128, np.uint8)
    padded[:33, :50] = image
    np.testing.assert_allclose(scores(other, image), scores(other, padded)[:, :33, :50], atol=1e-5)


def test_scale_1_without_flip_is_plain(model: torch.nn.Module) -> None:
    image = picture(40, 56)
    plain = Predictor(model, protocol="plain")
    assert plain.protocol == Protocol()
    for settings in ({}, {"scales": (1.0,), "flip": False}, {"scales": (1.0, 1.0, 1.0)}, {"longer_side": 56}):
        np.testing.assert_allclose(
            scores(model, image, **settings), plain.predict(image, True).probabilities, atol=1e-6
        )


def test_logits_are_averaged_before_the_softmax(model: torch.nn.Module) -> None:
    image = picture(32, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - mean) / std
    with torch.no_grad():
        small = model(F.interpolate(x, (16, 32), mode="bilinear", antialias=True))
        logits = (model(x) + F.interpolate(small, (32, 64), mode="bilinear")) / 2
    found = scores(model, image, scales=(1.0, 0.5), average="logits")
    np.testing.assert_allclose(found, logits.softmax(1)[0].numpy(), atol=1e-4)
    assert np.abs(found - scores(model, image, scales=(1.0, 0.5))).max() > 1e-3
    once = scores(model, image, average="logits")
    np.testing.assert_allclose(once, scores(model, image), atol=1e-6)


def test_the_crf_comes_after_the_average(model: torch.nn.Module) -> None:
    image = picture(32, 48)
    settings: dict[str, Any] = {"scales": (1.0, 0.75), "flip": True, "mode": "slide", "size": (32, 32)}
    mean = scores(model, image, **settings)
    found = scores(model, image, crf={"bi_w": 5, "iter_max": 3}, **settings)
    np.testing.assert_allclose(found, atrous.DenseCRF(iter_max=3, bi_w=5)(image, mean), atol=1e-5)
    assert np.abs(found - mean).max() > 1e-3


# Batches


@pytest.mark.parametrize(
    "settings", [{}, {"flip": True, "scales": (0.5, 1.0)}, *ANY[:2], {"crf": True}], ids=str
)
def test_a_batch_is_its_pictures_in_their_order(model: torch.nn.Module, settings: dict[str, Any]) -> None:
    predictor = Predictor(model, **settings)
    images = [picture(*size, seed=seed) for seed, size in enumerate([(33, 40), (20, 30), (33, 40), (1, 1)])]
    for probabilities in (True, False):
        for image, result in zip(images, predictor.predict_batch(images, probabilities), strict=True):
            alone = predictor.predict(image, True)
            if probabilities:
                # the CRF keeps Q in 16 bits, and passes on what a last bit changes
                atol = 2e-2 if "crf" in settings else 1e-4
                np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=atol)
            top = np.sort(alone.probabilities, 0)[-2:]
            clear = top[1] - top[0] > (4e-2 if "crf" in settings else 1e-3)
            np.testing.assert_array_equal(result.labels[clear], alone.labels[clear])
            assert clear.mean() > 0.9
    assert predictor.predict_batch([]) == []
