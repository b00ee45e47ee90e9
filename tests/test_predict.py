from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import atrous
from atrous.data import SCENES
from atrous.errors import InputError
from atrous.finding import find_pictures
from atrous.predict import Predictor, pick_device
from atrous.results import write_segmentation


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(scene_checkpoint: Path) -> torch.nn.Module:
    return atrous.load(scene_checkpoint)


def by_hand(model: torch.nn.Module, image: np.ndarray) -> torch.Tensor:
    """The plain model on a normalised picture."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        return model((x - mean) / std).softmax(1)


def test_direct_on_whole_strides_is_the_plain_model(model: torch.nn.Module) -> None:
    image = picture(64, 96)
    result = Predictor(model).predict(image, probabilities=True)
    expected = by_hand(model, image)[0].numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(0))
    assert result.labels.dtype == np.uint8
    assert result.names == SCENES.names


@pytest.mark.parametrize("size", [(1, 1), (1, 77), (33, 50)])
def test_direct_pads_with_the_mean_and_crops_back(model: torch.nn.Module, size: tuple[int, int]) -> None:
    image = picture(*size)
    mean = np.array([0.485, 0.456, 0.406]) * 255
    padded = np.broadcast_to(mean, (-(-size[0] // 16) * 16, -(-size[1] // 16) * 16, 3)).copy()
    padded[: size[0], : size[1]] = image
    expected = by_hand(model, padded)[0, :, : size[0], : size[1]].numpy()
    result = Predictor(model).predict(image, probabilities=True)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)


def test_flip_makes_the_answer_symmetric(model: torch.nn.Module) -> None:
    predictor = Predictor(model, flip=True)
    image = picture(32, 64)
    straight = predictor.predict(image, probabilities=True).probabilities
    mirrored = predictor.predict(image[:, ::-1], probabilities=True).probabilities
    np.testing.assert_allclose(straight, mirrored[..., ::-1], atol=1e-5)


def test_scales_and_flips_average_probabilities(model: torch.nn.Module) -> None:
    image = picture(32, 64)
    views = []
    for scale in (1.0, 2.0):
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        grown = F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
        for flipped in (False, True):
            view = grown.flip(-1) if flipped else grown
            scores = by_hand(model, view[0].permute(1, 2, 0).numpy())
            scores = scores.flip(-1) if flipped else scores
            views.append(F.interpolate(scores, (32, 64), mode="bilinear"))
    expected = torch.stack(views).mean(0)[0].numpy()
    result = Predictor(model, scales=(1.0, 2.0), flip=True).predict(image, probabilities=True)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)


def test_one_window_is_direct_and_resize_to_the_own_size_too(model: torch.nn.Module) -> None:
    image = picture(48, 64)
    direct = Predictor(model).predict(image, probabilities=True).probabilities
    for mode in ("slide", "resize"):
        other = Predictor(model, mode=mode, size=(48, 64)).predict(image, probabilities=True).probabilities
        np.testing.assert_allclose(other, direct, atol=1e-6)


@pytest.mark.parametrize("mode", ["slide", "resize"])
def test_a_size_of_the_protocol_is_the_models_own(model: torch.nn.Module, mode: Any) -> None:
    """Not padded to whole strides: networks trained at 513 see 513."""
    image = picture(33, 49)
    result = Predictor(model, mode=mode, size=(33, 49)).predict(image, probabilities=True)
    np.testing.assert_allclose(result.probabilities, by_hand(model, image)[0].numpy(), atol=1e-5)
    assert np.abs(Predictor(model).predict(image, True).probabilities - result.probabilities).max() > 1e-3


def test_resize_gives_the_pictures_own_size_back(model: torch.nn.Module) -> None:
    result = Predictor(model, mode="resize", size=(64, 64)).predict(picture(50, 130), probabilities=True)
    assert result.labels.shape == (50, 130)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)


def test_pictures_as_they_lie_in_memory(model: torch.nn.Module) -> None:
    """Flipped views, of one row or column too, slices, and what may not be written to."""
    predictor = Predictor(model)
    whole = np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8)
    fixed = whole.copy()
    fixed.flags.writeable = False
    for view in (whole[:, ::-1], whole[::-1, :1][:, ::-1], whole[:1][::-1], whole[::2, 1::3], fixed):
        np.testing.assert_array_equal(predictor.predict(view).labels, predictor.predict(view.copy()).labels)
    assert not fixed.flags.writeable


def test_what_is_no_picture(model: torch.nn.Module) -> None:
    shapes = ((4, 4), (4, 4, 4), (0, 4, 3))
    arrays = (np.zeros(shape, np.uint8) for shape in shapes)
    for bad in (*arrays, np.zeros((4, 4, 3)), None, torch.zeros(3, 4, 4), 5):
        with pytest.raises(InputError, match=r"\(H, W, 3\) uint8"):
            Predictor(model).predict(bad)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_a_picture_of_pillow_is_what_its_file_is(model: torch.nn.Module, tmp_path: Path, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (21, 33, 4), dtype=np.uint8)
    pixels = {"L": values[..., 0], "RGB": values[..., :3], "RGBA": values}.get(
        mode, values[..., 0] * np.uint16(257)
    )
    picture = Image.fromarray(pixels)
    assert picture.mode == mode
    picture.save(tmp_path / "picture.png")
    predictor = Predictor(model)
    wanted = predictor.predict(tmp_path / "picture.png", probabilities=True).probabilities
    np.testing.assert_array_equal(predictor.predict(picture, probabilities=True).probabilities, wanted)


def test_one_number_is_a_square_and_a_single_scale(model: torch.nn.Module) -> None:
    protocol = Predictor(model, mode="resize", size=65, scales=1.5).protocol
    assert protocol == Predictor(model, mode="resize", size=(65, 65), scales=(1.5,)).protocol
    assert (protocol.size, protocol.scales) == ((65, 65), (1.5,))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scales": "big"}, "scales ('b', 'i', 'g') must be a list of positive numbers"),
        ({"scales": 0}, "scales (0,) must be a list of positive numbers"),
        ({"size": "65"}, "size 65 is not (height, width) in pixels"),
        ({"size": 65.5}, "size 65.5 is not (height, width) in pixels"),
        ({"longer_side": "65"}, "longer_side 65 must be at least 1 pixel"),
        ({"overlap": "half"}, "overlap half must be a share of the window"),
        ({"output_stride": "8"}, "output_stride 8 must be at least 1"),
        ({"crf": 4}, "crf 4 must be numbers by name"),
        ({"flip": 1}, "flip 1 must be true or false"),
        ({"device": []}, "device [] cannot be used here"),
        ({"pictures": "5"}, "pictures='5': wanted int | None"),
        ({"model": None}, "NoneType is no model of atrous.create_model or atrous.load"),
    ],
    ids=str,
)
def test_a_setting_of_another_kind(model: torch.nn.Module, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Predictor(**{"model": model, **setting})
    assert message in str(error.value)


def test_what_is_not_evaluated(model: torch.nn.Module) -> None:
    with pytest.raises(InputError, match=r"dataset='folder': wanted what atrous.open_dataset"):
        atrous.evaluate(Predictor(model), "folder")
    with pytest.raises(InputError, match=r"predictor='m.safetensors': wanted Predictor"):
        atrous.evaluate("m.safetensors", atrous.open_dataset("scenes", "val", length=1))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_model_of_other_than_three_channels(
    channels: int, photo: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    model = atrous.create_model("deeplab_v3plus", "resnet18", num_classes=3, in_channels=channels)
    with pytest.raises(
        InputError, match=f"takes {channels} channels, and pictures are read as RGB, which has 3"
    ):
        Predictor(model)
    path = tmp_path / "m.safetensors"
    atrous.save(model, path)
    message = refused(["predict", str(path), str(photo), "--out", str(tmp_path / "out")])
    assert f"takes {channels} channels" in message
    assert sorted(tmp_path.iterdir()) == [path, photo]


def test_unknown_device() -> None:
    with pytest.raises(InputError, match="device 'toaster' cannot be used"):
        pick_device("toaster")


def test_files_hold_indices_with_the_palette(model: torch.nn.Module, tmp_path: Path) -> None:
    image = picture(20, 30)
    result = Predictor(model).predict(image, probabilities=True)
    write_segmentation(result, image, tmp_path / "out", "a")
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), result.labels)
        assert tuple(mask.getpalette()[3:6]) == SCENES.palette[1]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a_probabilities.npy"), result.probabilities)
    with Image.open(tmp_path / "out" / "a_overlay.png") as overlay:
        assert overlay.size == (30, 20)
    with pytest.raises(InputError, match=r"a\.png: exists already"):
        write_segmentation(result, image, tmp_path / "out", "a")
    write_segmentation(result, image, tmp_path / "out", "a", overwrite=True)


def test_pictures_that_share_a_stem_keep_their_ending(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    assert sorted(find_pictures([tmp_path])) == ["a_jpg", "a_png", "b"]
    assert list(find_pictures([tmp_path / "b.jpg", tmp_path / "b.jpg"])) == ["b"]


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures in this folder"):
        find_pictures([tmp_path])
    with pytest.raises(InputError, match="no such picture"):
        find_pictures([tmp_path / "gone.jpg"])


def test_longer_side_shrinks_first_and_answers_at_full_size(model: torch.nn.Module) -> None:
    image = picture(96, 192)
    result = Predictor(model, longer_side=64).predict(image, probabilities=True)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    small = F.interpolate(x, (32, 64), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    expected = F.interpolate(by_hand(model, small), (96, 192), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)


def test_a_prediction_waits_for_no_library_that_it_does_not_need(photo: Path, tmp_path: Path) -> None:
    """Each of these takes half a second or more to import."""
    code = "import sys; from atrous.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = ["predict", str(photo), "--out", str(tmp_path / "out"), "--device", "cpu", "--overwrite"]
    for _ in range(2):  # the first one compiles
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True
        )
    loaded = set(done.stdout.split())
    assert "atrous.predict" in loaded
    heavy = {"numba", "torchvision", "lightning_fabric", "torch._dynamo", "openvino", "onnxruntime", "gradio"}
    assert loaded & heavy == set()
