"""What a checkpoint is measured on is what its recipe held out, and not what it was trained on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous import checkpoint, evaluation, quantize, tuning
from atrous import train as training
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.config import Recipe
from atrous.data import Labels, SegmentationDataset, open_dataset
from atrous.errors import InputError
from atrous.report import measure
from atrous.verbs import evaluate
from atrous.verbs.data_as_trained import as_trained

Names = list[list[str]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The pictures of each data set that a verb comes to; there it stops."""
    found: Names = []

    def stop(*given: Any, **_settings: Any) -> None:
        found.extend(
            [pair.name for pair in data.pairs] for data in given if isinstance(data, SegmentationDataset)
        )
        raise InputError("stopped here")

    for module, name in (
        (evaluation, "evaluate"),
        (tuning, "search_crf"),
        (measure, "measure"),
        (quantize, "quantize"),
    ):
        monkeypatch.setattr(module, name, stop)
    return found


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of two classes with such a recipe; nobody trained it."""

    def save(**recipe: Any) -> Path:
        torch.manual_seed(0)
        model = atrous.create_model("deeplab_v3plus", "mobilenet_v2", num_classes=2, width=0.25)
        labels = Labels.named(["class_0", "class_1"])
        atrous.save(model, tmp_path / "best.safetensors", Metadata(labels, recipe=recipe))
        return tmp_path / "best.safetensors"

    return save


def names(data: str | Path, split: str, **options: Any) -> list[str]:
    return [pair.name for pair in open_dataset(data, split, **options).pairs]


VERBS = {
    "evaluate": "evaluate {} {}",
    "crf search": "crf search {} {}",
    "report": "report {} {}",
    "int8": "export {} --format onnx --int8 {} --out new.onnx",
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_recipe_says_what_is_val(
    verb: str,
    pictures_and_masks: Path,
    trained: Callable[..., Path],
    opened: Names,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = trained(data="data", format="auto", data_options={"seed": 1, "val_fraction": 0.2})
    held_out = {seed: names("data", "val", seed=seed, val_fraction=0.2) for seed in (0, 1)}
    assert held_out[0] != held_out[1] and len(held_out[1]) == 2
    words = VERBS[verb].format(file, "data").split()
    with pytest.raises(SystemExit):
        main(words)
    assert opened[-1] == held_out[1]
    if verb == "int8":
        assert opened[0] == [str(i) for i in range(10) if str(i) not in held_out[1]]
    said = capsys.readouterr().out
    assert "recipe opened its data: --data_options.seed 1 --data_options.val_fraction 0.2\n" in said
    with pytest.raises(SystemExit):
        main([*words, "--data_options.seed", "0", "--split", "train"])
    assert opened[-1] == names("data", "train", seed=0, val_fraction=0.2)  # key by key
    assert "data: --data_options.val_fraction 0.2\n" in capsys.readouterr().out


def test_what_is_said_can_be_copied_into_a_shell(pictures_and_masks: Path) -> None:
    options = {"values": {"255": 1}, "classes": ["a b", "it's"], "images": "images", "strict": False}
    note = as_trained({"format": "folder", "data_options": options}, str(pictures_and_masks)).note
    words = ["evaluate", "a.safetensors", str(pictures_and_masks), *shlex.split(note.partition(": ")[2])]
    given = evaluate.arguments(words).parse_args(words[1:])
    values = {int(old): new for old, new in given.data_options.pop("values").items()}
    assert values == {255: 1} and given.data_options == {k: v for k, v in options.items() if k != "values"}


def test_elsewhere_nothing_changes(
    pictures_and_masks: Path, trained: Callable[..., Path], opened: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data of another format than the recipe's, and a recipe that says "auto" whose data is gone."""
    for recipe in (
        {"data": "x", "format": "voc"},
        {"data": "gone", "format": "auto"},
        {"data": "scenes"},
        {},
    ):
        file = trained(**recipe, val_split="test", data_options={"seed": 1})
        with pytest.raises(SystemExit):
            main(["evaluate", str(file), str(pictures_and_masks)])
        assert opened[-1] == names(pictures_and_masks, "val")
        assert "recipe" not in capsys.readouterr().out


def test_a_run_writes_down_the_format_that_it_found(pictures_and_masks: Path, tmp_path: Path) -> None:
    """So its checkpoints know it where the data is not."""
    recipe = Recipe(
        data=str(pictures_and_masks),
        backbone="mobilenet_v2",
        model_options={"width": 0.25},
        crop_size=32,
        batch_size=2,
        iterations=1,
        workers=0,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    run = training.set_up(recipe)
    assert run.metadata.recipe["format"] == "folder"
    assert recipe.format == "auto"  # what was given stays


def test_the_box_knows_its_classes_of_voc(tmp_path: Path) -> None:
    """On VOC without options: 12 classes, and the other nine are background."""
    lists, masks, photos = (
        tmp_path / "VOC2012" / name for name in ("ImageSets/Segmentation", "SegmentationClass", "JPEGImages")
    )
    for folder in (lists, masks, photos):
        folder.mkdir(parents=True)
    (lists / "val.txt").write_text("a\n")
    Image.fromarray(np.array([[0, 1, 8, 20, 15, 255]], np.uint8)).save(masks / "a.png")
    Image.fromarray(np.zeros((1, 6, 3), np.uint8)).save(photos / "a.jpg")
    about = checkpoint.metadata_of(atrous.load())
    data = as_trained(about.recipe, str(tmp_path)).open()
    assert data.labels.names == about.labels.names
    cat, person = about.labels.names.index("cat"), about.labels.names.index("person")
    assert data.mask(0).tolist() == [[0, 0, cat, 0, person, 255]]


def test_how_many_scenes_were_drawn_to_learn_from_is_not_how_many_are_measured() -> None:
    recipe = {"data": "scenes", "format": "scenes", "data_options": {"length": 7, "seed": 3}}
    assert as_trained(recipe, "scenes").options == {"seed": 3}
    assert as_trained(recipe, "scenes", options={"length": 5}).options == {"seed": 3, "length": 5}
