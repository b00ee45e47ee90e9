"""As many classes are not the same classes: their names, in their order, are what a model tells apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.data import VOC, Labels
from atrous.data.labels import check_classes, first_difference
from atrous.errors import InputError
from atrous.importers.initialise import initialise
from atrous.models import create_model

NAMES = ("background", "cat", "tv/monitor")


@pytest.mark.parametrize(
    ("others", "first"),
    [
        (("background", "cat", "tv/monitor"), None),
        (("__Background__", "Cat", "TV monitor"), None),
        (("class_0", "label 1", "2"), None),
        (("background", "class_1", "tvmonitor"), None),
        (("cat", "background", "tv/monitor"), 0),
        (("background", "tv/monitor", "cat"), 1),
        (("background", "cat", "dog"), 2),
        (("background", "class_1", "cat"), 2),
        (("background", "cat", "tv"), 2),
    ],
)
def test_order_is_strict_and_spelling_is_not(others: tuple[str, ...], first: int | None) -> None:
    assert first_difference(NAMES, others) == first_difference(others, NAMES) == first


def test_names_without_letters_are_not_all_the_same() -> None:
    assert first_difference(("?", "!"), ("!", "?")) == 0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=3, width=0.25, aux=True)
    atrous.save(model, tmp_path / "three.safetensors", Metadata(Labels.named(NAMES)))
    return tmp_path / "three.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(2):
        mask = np.arange(3, dtype=np.uint8).repeat(8)[None].repeat(24, 0)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{i}.png")
        Image.fromarray(np.stack([mask * 80] * 3, 2)).save(tmp_path / "data" / "images" / f"{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("verb", ["evaluate", "crf search"])
def test_scores_do_not_come_under_wrong_names(
    verb: str, file: Path, folder: Path, refused: Callable[..., str]
) -> None:
    (folder / "classes.txt").write_text("background\nTVmonitor\ncat\n")
    words = [*verb.split(), str(file), str(folder)]
    assert "class 1 is 'cat' in the model and 'TVmonitor' in the data: " in refused(words)
    assert not (file.parent / "three_val.json").exists()


def test_another_spelling_is_measured(file: Path, folder: Path) -> None:
    (folder / "classes.txt").write_text("Background\nCAT\ntv_monitor\n")
    """With the scores that the same data has under the model's own names."""
    scores = []
    for names in ("Background\nCAT\ntv_monitor\n", "\n".join(NAMES)):
        (folder / "classes.txt").write_text(names)
        path = file.parent / f"{len(scores)}.json"
        main(["evaluate", str(file), str(folder), "--json", str(path)])
        scores.append(json.loads(path.read_text()))
    assert scores[0]["confusion"] == scores[1]["confusion"]
    assert list(scores[0]["per_class_iou"].values()) == list(scores[1]["per_class_iou"].values())


@pytest.mark.parametrize(
    ("others", "fits"),
    [
        (("background", "cat", "dog", "tv"), True),
        (("background", "kitty", "dog", "telly"), False),  # most are others
        (("background", "tvmonitor", "dog", "cat"), False),
        (("background", "tvmonitor", "dog", "screen"), False),  # one has moved
        (("sky", "cat", "dog", "tvmonitor"), True),
    ],
)
def test_other_words_for_a_few_classes_are_measured(others: tuple[str, ...], fits: bool) -> None:
    ours = Labels.named(("background", "cat", "dog", "tvmonitor"))
    if fits:
        check_classes(ours, Labels.named(others))
    else:
        with pytest.raises(InputError, match="in the model and"):
            check_classes(ours, Labels.named(others))


def test_names_that_an_importer_guessed_by_their_number_do_not_count(
    folder: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (folder / "classes.txt").write_text("\n".join(f"kind of thing {chr(97 + i)}" for i in range(21)))
    model = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=21, width=0.25)
    for recipe in ({}, {"model": "deeplab_v3plus"}):
        atrous.save(model, tmp_path / "voc.safetensors", Metadata(VOC, recipe=recipe))
        words = ["evaluate", str(tmp_path / "voc.safetensors"), str(folder)]
        if recipe:
            assert "class 0 is 'background' in the model" in refused([*words, "--overwrite"])
        else:
            main(words)
            main(["crf", "search", *words[1:], "--pictures", "1", "--iterations", "0"])
    assert (tmp_path / "voc_val.json").exists()


def test_a_new_classifier_where_the_names_are_others(file: Path) -> None:
    theirs = atrous.load(file).state_dict()
    scored = [f"{layer}.{kind}" for layer in ("classifier", "aux.4") for kind in ("weight", "bias")]
    for names, new in ((NAMES, []), (("background", "tv/monitor", "cat"), scored)):
        network = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=3, width=0.25, aux=True)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        taken = initialise(network, file, lambda: torch.empty(0), Labels.named(names))
        assert taken.new == new
        for name, value in network.state_dict().items():
            assert value.equal(before[name] if name in new else theirs[name]), name
        said = "a new classifier, as class 1 is 'cat' there and 'tv/monitor' here"
        assert (said in str(taken)) == bool(new)
