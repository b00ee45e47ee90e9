from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.utils import prune

import atrous
from atrous.checkpoint import BOX_FILE, Metadata, load, metadata_of, read_metadata, save
from atrous.cli import main
from atrous.config import Normalization, Protocol
from atrous.data import SCENES, Labels
from atrous.errors import InputError


def small_model() -> torch.nn.Module:
    return atrous.create_model("deeplab_v3plus", backbone="resnet18", num_classes=9, separable=True)


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    model = small_model().eval()
    metadata = Metadata(
        SCENES,
        normalization=Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        protocol=Protocol("resize", (65, 97), scales=(0.75, 1.0), flip=True, crf={"bi_w": 3.0}),
        scores={"miou": 0.5},
        recipe={"epochs": 3},
    )
    save(model, tmp_path / "m.safetensors", metadata)
    again = load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert metadata_of(again) == metadata
    x = torch.randn(1, 3, 33, 47)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.safetensors"]


def test_metadata_stays_when_a_loaded_model_is_saved(scene_checkpoint: Path, tmp_path: Path) -> None:
    save(load(scene_checkpoint), tmp_path / "copy.safetensors")
    assert metadata_of(load(tmp_path / "copy.safetensors")).labels == SCENES


def test_wrong_number_of_labels(tmp_path: Path) -> None:
    model = atrous.create_model("deeplab_v3", backbone="resnet18", num_classes=3)
    with pytest.raises(InputError, match="3 classes, its labels 9"):
        save(model, tmp_path / "m.safetensors", Metadata(SCENES))
    assert not list(tmp_path.iterdir())


def test_only_our_models_are_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Linear is no model of atrous"):
        save(torch.nn.Linear(1, 1), tmp_path / "m.safetensors")


def test_half_precision_and_who_may_read(tmp_path: Path) -> None:
    """Weights in float16 round to it and come back as float32; the file may be read as any other of its folder."""
    model = small_model().eval()
    save(model, tmp_path / "half.safetensors", dtype=torch.float16)
    (tmp_path / "other").touch()
    assert (tmp_path / "half.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    with safe_open(tmp_path / "half.safetensors", framework="pt") as file:
        assert file.get_tensor("classifier.weight").dtype == torch.float16
    for name, value in load(tmp_path / "half.safetensors").state_dict().items():
        expected = model.state_dict()[name]
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected.half().float() if value.is_floating_point() else expected)


def test_the_learned_weights_of_a_crf_come_back(tmp_path: Path) -> None:
    model: Any = atrous.create_model(
        "deeplab_v1", "resnet18", num_classes=3, crf={"pos_w": 2.5, "num_classes": 3}
    )
    model.crf.layer.bi_w.data.fill_(1.25)
    save(model, tmp_path / "m.safetensors")
    again: Any = load(tmp_path / "m.safetensors")
    assert [again.crf.layer.pos_w.item(), again.crf.layer.bi_w.item()] == [2.5, 1.25]
    assert torch.equal(again.crf.layer.compatibility, 1 - torch.eye(3))


@pytest.mark.parametrize("part", ["whole", "backbone"])
def test_a_compiled_model_is_saved_as_the_model_inside(part: str, tmp_path: Path) -> None:
    model: Any = small_model().eval()
    x = torch.randn(1, 3, 33, 47)
    expected = model(x)
    if part == "whole":
        model = torch.compile(model)
    else:
        model.backbone = torch.compile(model.backbone)
    save(model, tmp_path / "m.safetensors", Metadata(SCENES))
    again = load(tmp_path / "m.safetensors")
    assert metadata_of(again).labels == SCENES
    torch.testing.assert_close(again(x), expected, rtol=0, atol=0)


def _another_classifier(model: Any) -> None:
    model.classifier = torch.nn.Conv2d(256, 5, 1)


def _pruned(model: Any) -> None:
    prune.l1_unstructured(model.classifier, "weight", 0.5)


def _a_layer_more(model: Any) -> None:
    model.extra = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _another_classifier,
            r"classifier.weight is \(5, 256, 1, 1\) in this model, and \(9, 256, 1, 1\) in",
        ),
        (_pruned, "classifier.weight is not there in this model"),
        (_a_layer_more, r"extra.weight is \(2, 2\) in this model, and not there in the deeplab_v3plus"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    model = small_model()
    path = tmp_path / "m.safetensors"
    save(model, path)
    before = path.read_bytes()
    change(model)
    with pytest.raises(InputError, match=f"^{path}: not written, it could not be loaded: {message}"):
        save(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_permanent_pruning_is_saved(tmp_path: Path) -> None:
    model: Any = small_model()
    _pruned(model)
    prune.remove(model.classifier, "weight")
    save(model, tmp_path / "m.safetensors")
    again: Any = load(tmp_path / "m.safetensors")
    assert int((again.classifier.weight == 0).sum()) == 9 * 256 // 2


def test_only_floating_dtypes_that_hold_the_weights(tmp_path: Path) -> None:
    model: Any = small_model()
    path = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"cannot be saved as torch.int8: choose from torch.float16, "):
        save(model, path, dtype=torch.int8)
    model.backbone.bn1.running_var[0] = 70000  # float16 ends at 65504
    with pytest.raises(InputError, match=r"backbone.bn1.running_var has values too large for torch.float16"):
        save(model, path, dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    save(model, path, dtype=torch.bfloat16)
    again: Any = load(path)
    assert float(again.backbone.bn1.running_var[0]) == 70144  # the nearest with eight bits: 137 * 512


def test_an_interrupted_write_leaves_the_old_file(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    model = load(scene_checkpoint)
    save(model, path)
    before = path.read_bytes()

    def broken(weights: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("atrous.checkpoint.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_checkpoint(scene_checkpoint: Path, tmp_path: Path) -> None:
    text, cut, foreign, mixed = (tmp_path / f"{n}.safetensors" for n in ("text", "cut", "foreign", "mixed"))
    text.write_text("hello")
    cut.write_bytes(scene_checkpoint.read_bytes()[:-100])
    save_file({"a": torch.zeros(1)}, foreign)
    for path, message in (
        (tmp_path / "none.safetensors", "no such checkpoint"),
        (text, "not a readable safetensors file"),
        (cut, "not a readable safetensors file"),
        (foreign, "not a checkpoint that atrous wrote"),
    ):
        with pytest.raises(InputError, match=message) as error:
            load(path)
        assert str(path) in str(error.value)
    torch.save({"a": torch.zeros(1)}, tmp_path / "tv.pth")
    with pytest.raises(
        InputError, match=r"tv\.pth: no checkpoint that atrous wrote; a checkpoint of another project"
    ):
        load(tmp_path / "tv.pth")
    header = scene_checkpoint.read_bytes().replace(b'\\"num_classes\\": 9', b'\\"num_classes\\": 8')
    mixed.write_bytes(header)
    with pytest.raises(InputError, match="do not fit together"):
        load(mixed)


def test_metadata_without_the_weights(tmp_path: Path) -> None:
    """Of a file whose weights fit no model, too, and of the folder that holds it."""
    model = atrous.create_model("deeplab_v3plus", "mobilenet_v2", num_classes=2, width=0.25)
    path = tmp_path / "model.safetensors"
    save(model, path, Metadata(Labels.named(["a", "b"]), scores={"miou": 0.5}, recipe={"seed": 3}))
    assert read_metadata(path) == read_metadata(tmp_path) == metadata_of(load(path))
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file({"x": torch.zeros(1)}, path, header)
    assert read_metadata(path).recipe == {"seed": 3}
    with pytest.raises(InputError, match="header and weights do not fit together"):
        load(path)
    with pytest.raises(InputError, match=r"gone\.safetensors: no such checkpoint"):
        read_metadata(tmp_path / "gone.safetensors")


def test_the_folder_of_a_run_is_its_best_checkpoint(
    scene_checkpoint: Path, photo: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """The verbs that take a checkpoint take the folder, and leave its drawn samples alone; last, where no best is."""
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    shutil.copy(photo, run / "samples" / "000003.jpg")
    shutil.copy(scene_checkpoint, run / "best.safetensors")
    shutil.copy(BOX_FILE, run / "last.safetensors")
    wanted = atrous.Predictor(scene_checkpoint).predict(photo)
    assert atrous.Predictor(run).predict(photo).names == wanted.names == SCENES.names
    for verb in (["predict", str(run), str(photo), "--out", str(tmp_path / "out")], ["info", str(run)]):
        main(verb)
    with Image.open(tmp_path / "out" / "photo.png") as found:
        np.testing.assert_array_equal(np.asarray(found), wanted.labels)
    assert not (tmp_path / "out" / "samples").exists()
    main(["evaluate", str(run), "scenes", "--limit", "1"])
    main(["evaluate", str(scene_checkpoint), "scenes", "--limit", "1", "--json", str(tmp_path / "file.json")])
    of_run, of_file = (
        json.loads(path.read_text()) for path in (run / "best_val.json", tmp_path / "file.json")
    )
    assert of_run["confusion"] == of_file["confusion"]

    (run / "best.safetensors").unlink()
    assert metadata_of(load(run)).labels == metadata_of(load()).labels
    (run / "last.safetensors").unlink()
    assert "run: this folder has no best.safetensors, last.safetensors or model.safetensors" in refused(
        ["evaluate", str(run), "scenes"]
    )
