"""What the page does, without the page: uploads and their limits, and the steps against `Predictor`."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.app import work
from atrous.app.drawing import before_after, hover_picture, legend
from atrous.app.visit import NO_MODEL, wishes
from atrous.app.work import Limits, Models, Wish
from atrous.data import SCENES
from atrous.data.scenes import draw_scene
from atrous.errors import InputError
from atrous.visualize import in_palette


@pytest.fixture(scope="module")
def models(scene_checkpoint: Path) -> Models:
    return Models([str(scene_checkpoint)], "cpu")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(draw_scene(0, size=(60, 90))[0]).save(path)
    return path


def bomb(path: Path) -> Path:
    """A PNG of 100 bytes that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_the_steps_are_those_of_the_predictor(models: Models, scene: Path, scene_checkpoint: Path) -> None:
    upload = work.read_upload(scene, Limits())
    wish = Wish("v3", scales=(0.75, 1.0), flip=True)
    scores = work.segment(models, "scenes", upload, wish)
    crf = {"iter_max": 3, "bi_w": 5.0, "bi_xy_std": 30.0, "bi_rgb_std": 5.0}
    for options in (None, crf):
        predictor = atrous.Predictor(
            scene_checkpoint, protocol="v3", scales=(0.75, 1.0), flip=True, crf=options or False, device="cpu"
        )
        expected = predictor.predict(scene, probabilities=True)
        result = work.refine(scores, upload, options)
        np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-5)
        assert (result.labels == expected.labels).mean() > 0.999
    assert models.crf("scenes", Wish("v1")) == {}
    assert models.crf("scenes", Wish("v3")) is None


def test_refining_leaves_the_scores_as_they_are(models: Models, scene: Path) -> None:
    upload = work.read_upload(scene, Limits())
    scores = work.segment(models, "scenes", upload, Wish())
    before = scores.probabilities.copy()
    work.refine(scores, upload, {})
    np.testing.assert_array_equal(scores.probabilities, before)


def test_shares_hover_and_files(models: Models, scene: Path, tmp_path: Path) -> None:
    upload = work.read_upload(scene, Limits())
    result = work.refine(scores := work.segment(models, "scenes", upload, Wish()), upload, None)
    found = work.shares(result)
    assert sum(share.share for share in found) == pytest.approx(1)
    largest = found[0]
    assert result.probabilities is not None
    inside = result.labels == largest.number
    assert largest.share == inside.mean() == max(share.share for share in found)
    assert largest.confidence == pytest.approx(result.probabilities[largest.number][inside].mean(), abs=1e-5)
    hover = hover_picture(result).astype(int)
    np.testing.assert_array_equal(hover[..., 0] + 256 * hover[..., 1], result.labels)
    np.testing.assert_allclose(hover[..., 2] / 255, result.probabilities.max(0), atol=0.5 / 255 + 1e-6)
    assert SCENES.names[largest.number] in legend(scores, result)
    picture, mask = before_after(upload, result, "mask")
    np.testing.assert_array_equal(picture, upload.image)
    np.testing.assert_array_equal(mask[10, 10], in_palette(SCENES, "safe").palette[result.labels[10, 10]])

    files = work.write_downloads(tmp_path / "out", upload, result)
    np.testing.assert_array_equal(np.asarray(Image.open(files[0])), result.labels)
    assert json.loads(files[2].read_text())["imagePath"] == "scene.png"


def test_what_a_class_is_called_is_no_html(models: Models, scene: Path) -> None:
    upload = work.read_upload(scene, Limits())
    scores = work.segment(models, "scenes", upload, Wish())
    result = work.refine(scores, upload, None)
    named = atrous.Segmentation(result.labels, result.probabilities, ("<script>",) * 9, result.palette)
    assert "<script>" not in legend(scores, named)


def test_a_long_picture_is_shrunk_and_says_so(scene: Path) -> None:
    upload = work.read_upload(scene, Limits(side=45))
    assert (upload.image.shape, upload.size) == ((30, 45, 3), (60, 90))
    assert upload.notes == ("90x60 pixels, worked on at 45x30; so are the downloads",)
    mean = np.asarray(Image.open(scene)).reshape(30, 2, 45, 2, 3).mean((1, 3))
    assert np.abs(upload.image - mean).mean() < 5


def test_uploads_that_are_refused(scene: Path, tmp_path: Path) -> None:
    (text := tmp_path / "a.jpg").write_bytes(b"no picture at all")
    (cut := tmp_path / "b.png").write_bytes(scene.read_bytes()[:900])
    for path, limits, message in (
        (text, Limits(), "^a.jpg: not a picture"),
        (cut, Limits(), "^b.png: the picture is damaged or cut off"),
        (scene, Limits(pixels=5000), "^scene.png: too many pixels; pictures up to 5,000"),
        (scene, Limits(megabytes=0.001), "^scene.png: .* MB; files up to 0.001 MB"),
        (bomb(tmp_path / "bomb.png"), Limits(), "^bomb.png: too many pixels; pictures up to 50,000,000"),
    ):
        with pytest.raises(InputError, match=message):
            work.read_upload(path, limits)


def test_models_by_name(models: Models, scene_checkpoint: Path, tmp_path: Path) -> None:
    assert models.names == ["scenes"]
    with pytest.raises(InputError, match="unknown model 'scene': did you mean 'scenes'"):
        models.predictor("scene")
    (tmp_path / "scenes.safetensors").symlink_to(scene_checkpoint)
    both = [str(scene_checkpoint), str(tmp_path / "scenes.safetensors")]
    assert Models(both, "cpu").names == both
    with pytest.raises(InputError, match="is given twice"):
        Models([both[0], both[0]], "cpu")


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_the_downloads_of_a_long_name_have_room_for_their_endings(
    letter: str, models: Models, scene: Path, tmp_path: Path
) -> None:
    long = scene.rename(tmp_path / f"{letter * (250 // len(letter.encode()))}.png")
    upload = work.read_upload(long, Limits())
    result = work.refine(work.segment(models, "scenes", upload, Wish()), upload, None)
    files = work.write_downloads(tmp_path / "out", upload, result)
    assert all(file.is_file() for file in files)
    assert files[0].name == f"{letter * (200 // len(letter.encode()))}_mask.png"


def test_no_model_is_an_unknown_one(models: Models) -> None:
    (name,), wish = wishes(None, NO_MODEL, "v3", None, "yes")  # type: ignore[arg-type]  # what JSON's null is
    with pytest.raises(InputError, match="unknown model None: "):
        models.predictor(name, wish)
