"""The model that the package brings: found without a name, small, and as good as its card says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import atrous
from atrous.checkpoint import BOX_FILE, metadata_of
from atrous.cli import main
from atrous.data import VOC
from atrous.data.voc import find_voc
from atrous.evaluation import evaluate

SHARED = (
    Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[1].parent / "shared")) / "data" / "VOCdevkit"
)
KNOWN = "background bottle car cat chair cow dog horse person pottedplant sheep sofa".split()


def test_it_is_one_small_file_in_half_precision() -> None:
    assert BOX_FILE.stat().st_size < 12e6
    with safe_open(BOX_FILE, framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16, torch.int64}


def test_it_says_what_it_is() -> None:
    model = atrous.load()
    about = metadata_of(model)
    assert list(about.labels.names) == KNOWN
    assert about.labels.palette == tuple(VOC.palette[VOC.names.index(name)] for name in KNOWN)
    assert about.recipe["data"] == "VOCdevkit"  # and no path of the machine it was trained on
    assert not any(str(value).startswith("/") for value in about.recipe.values())
    card = (BOX_FILE.parent / "CARD.md").read_text(encoding="utf-8")
    figures = zip(about.labels.names, about.scores["per_class_iou"].values(), strict=True)
    assert all(f"| {name} | {'absent' if iou is None else f'{iou:.3f}'} |" in card for name, iou in figures)


def test_predict_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`atrous predict PHOTO` is the model in the box; so is its name in place of a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "atrous").mkdir()  # a cache of conversions is looked into, by the digest of the box's file
    skimage = pytest.importorskip("skimage")
    cat = Path(skimage.__file__).parent / "data" / "chelsea.png"
    main(["predict", str(cat), "--out", "a"])
    main(["predict", "box", str(cat), "--out", "b"])
    labels = np.asarray(Image.open("a/chelsea.png"))
    assert np.array_equal(labels, np.asarray(Image.open("b/chelsea.png")))
    shares = np.bincount(labels.ravel(), minlength=len(KNOWN)) / labels.size
    assert shares[KNOWN.index("cat")] > 0.4  # a portrait of a cat that fills the picture
    assert shares[KNOWN.index("cat")] + shares[0] > 0.9


def test_a_model_without_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "box"])
    assert stop.value.code == 2
    assert "which pictures? box is the model" in capsys.readouterr().err


def test_another_project_s_checkpoint_is_imported_first(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "theirs.pth")
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "theirs.pth"), str(photo), "--out", str(tmp_path / "out")])
    assert "`atrous import FILE`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_voc(SHARED) is None, reason="needs the VOC part of ../shared")
def test_the_card_s_figure() -> None:
    predictor = atrous.Predictor()
    data = atrous.open_dataset(SHARED, "val", classes=KNOWN[1:])
    measured = evaluate(predictor, data)
    assert measured.miou == pytest.approx(metadata_of(predictor.model).scores["miou"], abs=2e-3)


def test_a_folder_alone_trains_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --recipe, --model and --backbone: recipe "quick", from the backbone, ASPP and decoder of the box."""
    monkeypatch.chdir(tmp_path)
    for i in range(8):
        pixels = np.zeros((40, 50, 3), np.uint8)
        pixels[:, 25 + i :] = 200
        for folder, array in (("images", pixels), ("masks", (pixels[..., 0] > 0).astype(np.uint8))):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(f"{folder}/{i}.png")
    small = "--iterations 2 --crop_size 49 --batch_size 2 --workers 0 --device cpu --precision 32-true"
    main(["train", ".", "--out", "run", *small.split()])
    said = capsys.readouterr().out
    assert "starts from " in said and "new: classifier.weight, classifier.bias" in said
    trained = atrous.load("run/last.safetensors")
    assert metadata_of(trained).recipe["init"] == "box"
    box, after = atrous.load().state_dict(), trained.state_dict()
    name = "backbone.features.3.conv.0.0.weight"
    assert torch.allclose(after[name], box[name], atol=1e-3) and not torch.equal(after[name], box[name])
