"""More than 255 classes: masks of 16 bits, in which 255 is a class like any other and 65535 is void."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous import train as training
from atrous.app import work
from atrous.app.drawing import before_after, hover_picture, legend, shown_labels
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.config import Recipe
from atrous.data import open_dataset
from atrous.data.labels import Labels
from atrous.large import segment_large
from atrous.predict import Predictor
from atrous.visualize import Style, View, draw, overlay

CLASSES = 300
VOID = 65535
CRF = ["--crf", "--crf_options.iter_max", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of 20 x 30; each mask has classes from all over, 255 not among them, and a row of void."""
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        mask = (np.arange(600).reshape(20, 30) * 7 + number) % CLASSES
        mask[mask == 255] = 256
        mask[0] = VOID
        Image.fromarray(mask.astype(np.uint16)).save(data / "masks" / f"{number}.png")
        pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"{number}.png")
    (data / "classes.txt").write_text("".join(f"thing {number}\n" for number in range(CLASSES)))
    return data


def recipe(data: Path, out: Path) -> Recipe:
    return Recipe(
        str(data),
        model="deeplab_v3",
        backbone="mobilenet_v2",
        model_options={"width": 0.25},
        pretrained=None,
        crop_size=48,
        scale=(1.0, 1.0),
        rotation=10.0,
        batch_size=2,
        iterations=1,
        workers=0,
        device="cpu",
        precision="32-true",
        out=str(out),
    )


def test_what_is_padded_is_void_and_no_class(folder: Path, tmp_path: Path) -> None:
    run = training.set_up(recipe(folder, tmp_path / "run"))
    masks = torch.stack([run.train_data[index].mask for index in range(len(run.train_data))])
    assert masks.shape[1:] == (48, 48)
    known = masks != VOID
    assert not (masks == 255).any() and int(masks[known].max()) < CLASSES
    # 19 rows of 30 have a class; turned by up to 10 degrees, so within a few pixels
    assert all(abs(int(one.sum()) - 19 * 30) < 30 for one in known)


@pytest.fixture(scope="module", params=[256, CLASSES])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that nobody trained; only the classes from 240 on are what it says."""
    torch.manual_seed(0)
    classes = request.param
    model = atrous.create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=classes, width=0.5)
    with torch.no_grad():
        model.classifier.weight.mul_(300)
        model.classifier.bias[240:] += 100
    path = tmp_path_factory.mktemp("checkpoint") / "many.safetensors"
    atrous.save(model, path, Metadata(Labels.named([f"thing {number}" for number in range(classes)])))
    return path


@pytest.mark.parametrize("view", ["overlay", "mask", "side-by-side", "outline"])
def test_files_hold_every_class(checkpoint: Path, photo: Path, tmp_path: Path, view: View) -> None:
    out = tmp_path / "out"
    words = ["--polygons", "labelme", "--probabilities", *(CRF if view == "overlay" else [])]
    main(
        ["predict", str(checkpoint), str(photo), "--out", str(out), "--view", view, "--device", "cpu", *words]
    )
    labels, scores = np.asarray(Image.open(out / "photo.png")), np.load(out / "photo_probabilities.npy")
    predictor = Predictor(checkpoint, device="cpu", crf={"iter_max": 2} if view == "overlay" else False)
    expected = predictor.predict(photo, probabilities=True)
    np.testing.assert_allclose(scores, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(labels, scores.argmax(0))
    assert labels.min() >= 240 and len(np.unique(labels)) > 2
    drawn = np.asarray(Image.open(out / f"photo_{view}.png").convert("RGB"))
    style = Style(view=view)
    np.testing.assert_array_equal(drawn, draw(np.asarray(Image.open(photo)), labels, expected.classes, style))
    outlines = json.loads((out / "photo.json").read_text())["shapes"]
    assert {shape["label"] for shape in outlines} <= {f"thing {number}" for number in np.unique(labels)}


def test_the_largest_classes_on_the_page(checkpoint: Path, photo: Path) -> None:
    upload = work.read_upload(photo, work.Limits())
    scores = work.segment(work.Models([str(checkpoint)], "cpu"), "many", upload, work.Wish())
    result = work.refine(scores, upload, {"iter_max": 2})
    over = before_after(upload, result)[1]
    np.testing.assert_array_equal(over, overlay(upload.image, result.labels, shown_labels(result), 0.55))
    most = int(np.bincount(result.labels.ravel()).argmax())
    assert f'data-class="{most}"' in legend(scores, result)
    red, green, _ = np.moveaxis(hover_picture(result).astype(int), -1, 0)
    np.testing.assert_array_equal(red + 256 * green, result.labels)


def test_a_large_picture_of_many_classes(checkpoint: Path, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    options: dict[str, Any] = {"mode": "slide", "size": (64, 64), "device": "cpu", "runtime": "eager"}
    predictor = Predictor(checkpoint, **options)
    labels, overview = segment_large(predictor, tmp_path / "a.tif", tmp_path, "out")
    np.testing.assert_array_equal(tifffile.imread(labels), predictor.predict(pixels).labels)
    assert np.asarray(Image.open(overview)).shape[1] == 100


def test_scores_are_those_of_all_classes(folder: Path, tmp_path: Path) -> None:
    """mIoU by hand; the row of void counts nowhere, and the report has the same figure."""
    training.train(recipe(folder, tmp_path / "run"))
    best = tmp_path / "run" / "best.safetensors"
    main(["evaluate", str(best), str(folder), "--split", "train", "--boundary_iou", "--trimap", "1"])
    found = json.loads((tmp_path / "run" / "best_train.json").read_text())
    data, predictor = open_dataset(folder, "train"), Predictor(best)
    truth, prediction = (
        np.concatenate([one.ravel() for one in arrays])
        for arrays in zip(
            *((data.arrays(i)[1], predictor.predict(data.image(i)).labels) for i in range(len(data))),
            strict=True,
        )
    )
    truth, prediction = truth[truth != VOID], prediction[truth != VOID]
    hits = [
        (np.sum((truth == c) & (prediction == c)), np.sum((truth == c) | (prediction == c)))
        for c in range(CLASSES)
    ]
    assert found["miou"] == pytest.approx(np.mean([hit / union for hit, union in hits if union]), abs=1e-12)
    assert sum(map(sum, found["confusion"])) == len(truth) == 19 * 30 * len(data)
    main(["report", str(tmp_path / "run"), "--split", "train"])
    assert f"<b>{100 * found['miou']:.2f}</b>" in (tmp_path / "run" / "report.html").read_text()
