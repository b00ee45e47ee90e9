"""Predicted polygons as LabelMe's and COCO's files, and back by `atrous data convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from atrous.cli import main
from atrous.data import SCENES
from atrous.data.convert import convert
from atrous.data.scenes import draw_scene
from atrous.pre_annotations import PolygonOptions, annotate, coco_file

SIZE = (240, 320)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, size in (("a.jpg", (64, 96)), ("sub/b.png", (50, 71))):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(3, size=size)[0]).save(path)
    return tmp_path / "photos"


def masks(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Class names of all pixels, by the picture's stem."""
    found = {}
    for path in sorted(folder.rglob("*.png")):
        if "overlay" not in path.name:
            table = np.array([*names, *["?"] * (256 - len(names))])
            found[path.stem.removeprefix("sub_")] = table[np.asarray(Image.open(path))]
    return found


@pytest.mark.parametrize("form", ["coco", "labelme"])
def test_there_and_back_exactly(form: str, photos: Path, scene_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(
        f"predict {scene_checkpoint} {photos} --out {out} --polygons {form} --simplify 0 --min_area 0".split()
    )
    source = out / "annotations.json" if form == "coco" else out
    written = [json.loads(path.read_text()) for path in out.rglob("*.json")]
    assert len(written) == {"coco": 1, "labelme": 2}[form]
    done = convert(source, tmp_path / "back", images=photos if form == "coco" else None)
    predicted, back = masks(out, list(SCENES.names)), masks(tmp_path / "back" / "masks", list(done.classes))
    assert predicted.keys() == back.keys() == {"a", "b"}
    for name in predicted:
        assert len(np.unique(predicted[name])) > 3
        np.testing.assert_array_equal(predicted[name], back[name])


@pytest.mark.parametrize("form", ["coco", "labelme"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_simplified_regions_stay_and_so_do_their_holes(form: str, index: int, tmp_path: Path) -> None:
    picture, labels = draw_scene(index, size=SIZE)
    labels[20:50, 30:70] = 7
    labels[28:40, 38:60] = 0  # a hole, 264 pixels
    probabilities = np.full((9, *SIZE), 0.05, np.float32)
    np.put_along_axis(probabilities, labels[None].astype(int), 0.6, axis=0)
    Image.fromarray(picture).save(tmp_path / "a.png")
    content = annotate(labels, probabilities, SCENES.names, "a.png", PolygonOptions(form))
    shapes = content["shapes"] if form == "labelme" else content["annotations"]
    assert {shape["score"] for shape in shapes} == {0.6}
    assert sum(shape["area"] for shape in shapes) == pytest.approx(labels.size, rel=0.02)
    content = content if form == "labelme" else coco_file([content], SCENES.names)
    (tmp_path / "a.json").write_text(json.dumps(content))
    done = convert(tmp_path / "a.json", tmp_path / "back", images=tmp_path)
    back = masks(tmp_path / "back" / "masks", list(done.classes))["a"]
    assert (back[29:39, 39:59] == "sky").all()
    for number, name in enumerate(SCENES.names):
        regions, count = ndimage.label(labels == number)
        for region in range(1, count + 1):
            own = regions == region
            if own.sum() > 2000:
                drawn = ndimage.label(back == name)[0]
                same = drawn == np.bincount(drawn[own & (drawn > 0)]).argmax()
                assert (own & same).sum() / (own | same).sum() >= 0.98


def test_scores_areas_and_boxes_of_coco(tmp_path: Path) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[1:4, 2:7] = 1
    probabilities = np.zeros((2, 6, 8), np.float32)
    probabilities[1] = np.linspace(0.5, 1, 48).reshape(6, 8)
    part = annotate(labels, probabilities, ["background", "cat"], "a.jpg", PolygonOptions("coco", 0, 0))
    (cat,) = part["annotations"]
    assert cat["segmentation"] == [[2, 1, 7, 1, 7, 4, 2, 4]]
    assert (cat["area"], cat["bbox"], cat["category_id"], cat["iscrowd"]) == (15, [2, 1, 5, 3], 1, 0)
    assert cat["score"] == pytest.approx(probabilities[1, 1:4, 2:7].mean(), abs=1e-4)
    labels[2, 3] = 0
    (cat,) = annotate(labels, probabilities, ["background", "cat"], "a.jpg", PolygonOptions("coco", 0, 0))[
        "annotations"
    ]
    # down the columns: 2 whole ones and a pixel of zeros, then columns of 3 with 3 between, one of them broken
    assert cat["segmentation"]["counts"] == [13, 3, 3, 1, 1, 1, 3, 3, 3, 3, 3, 3, 8]
    assert cat["area"] == 14


def test_shards_and_a_last_run_write_what_one_run_does(
    photos: Path, scene_checkpoint: Path, tmp_path: Path
) -> None:
    one, parts = tmp_path / "one", tmp_path / "parts"
    words = ["predict", str(scene_checkpoint), str(photos), "--polygons", "coco", "--out"]
    main([*words, str(one)])
    for shard in ("1/2", "2/2"):
        main([*words, str(parts), "--shard", shard])
        assert not (parts / "annotations.json").exists()
    main([*words, str(parts), "--resume"])
    assert (parts / "annotations.json").read_bytes() == (one / "annotations.json").read_bytes()


def test_what_was_corrected_is_kept(
    photos: Path, scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(scene_checkpoint), str(photos), "--out", str(tmp_path / "out"), "--polygons"]
    main([*words, "labelme"])
    corrected = tmp_path / "out" / "a.json"
    assert json.loads(corrected.read_text())["imagePath"] == "../photos/a.jpg"
    corrected.write_text("corrected")
    main([*words, "labelme", "--resume"])
    with pytest.raises(SystemExit, match="2"):
        main([*words, "labelme"])
    assert corrected.read_text() == "corrected"
    (tmp_path / "out" / "annotations.json").write_text("corrected")
    with pytest.raises(SystemExit, match="2"):
        main([*words, "coco"])
    assert "annotations.json: exists already" in capsys.readouterr().err
    assert (tmp_path / "out" / "annotations.json").read_text() == "corrected"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--simplify", "-1"], "simplify: wanted pixels >= 0"),
        (["--min_area", "-1"], "min_area: wanted pixels >= 0"),
        (["--large"], "leave out --polygons"),
    ],
)
def test_what_cannot_be(
    flags: list[str],
    message: str,
    photos: Path,
    scene_checkpoint: Path,
    tmp_path: Path,
    capsys: Any,
) -> None:
    out = tmp_path / "out"
    words = ["predict", str(scene_checkpoint), str(photos / "a.jpg"), "--out", str(out), "--polygons", "coco"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, *flags])
    assert message in capsys.readouterr().err
    assert not (out / "annotations.json").exists()
