"""`atrous import` and `atrous pull`: what they write, say and refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.models.segmentation as torchvision_models
from PIL import Image
from safetensors.torch import load_file, save_file

from atrous.checkpoint import load, metadata_of
from atrous.cli import main
from atrous.importers import import_checkpoint, zoo
from atrous.predict import Predictor


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    build = torchvision_models.deeplabv3_mobilenet_v3_large
    return dict(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).state_dict())


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command in an empty folder; returned: exit code, and what it said."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        try:
            main(words)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


Run = Callable[..., tuple[int, str]]


def test_imported_file_predicts_without_flags(
    weights: dict[str, torch.Tensor], tmp_path: Path, run: Run
) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, "deeplab.pth")
    code, said = run("import", "deeplab.pth")
    assert code == 0
    assert "deeplab_v3, mobilenet_v3_large, 21 classes" in said
    assert (
        "classifier.4.weight -> classifier.weight"
        in run("import", "deeplab.pth", "--names", "--overwrite")[1]
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(image).save("photo.png")
    assert run("predict", "deeplab.safetensors", "photo.png")[0] == 0
    direct = Predictor(import_checkpoint(weights)).predict(image)
    assert direct.names[15] == "person"
    with Image.open(tmp_path / "predictions" / "photo.png") as written:
        np.testing.assert_array_equal(np.asarray(written), direct.labels)


def test_never_overwrites_unasked(weights: dict[str, torch.Tensor], run: Run) -> None:
    torch.save(weights, "a.pth")
    assert run("import", "a.pth")[0] == 0
    before = Path("a.safetensors").read_bytes()
    code, said = run("import", "a.pth", "--num_classes", "3")
    assert (code, "exists already" in said) == (2, True)
    assert Path("a.safetensors").read_bytes() == before
    assert run("import", "a.pth", "--overwrite")[0] == 0


def test_a_file_in_its_own_folder_is_kept(weights: dict[str, torch.Tensor], run: Run) -> None:
    """The free name beside it is taken; nothing replaces the file that is imported."""
    save_file(weights, "tv.safetensors")
    before = Path("tv.safetensors").read_bytes()
    assert run("import", "tv.safetensors")[0] == 0
    assert load("tv_atrous.safetensors").config.name == "deeplab_v3"
    for words in ([], ["--out", "./tv.safetensors", "--overwrite"]):
        code, said = run("import", "tv.safetensors", *words)
        assert code == 2
        assert (
            "is the file to import, which is kept" if words else "tv_atrous.safetensors: exists already"
        ) in said
    assert run("import", "tv.safetensors", "--overwrite")[0] == 0
    assert Path("tv.safetensors").read_bytes() == before


def test_another_number_of_classes_is_warned_of(weights: dict[str, torch.Tensor], run: Run) -> None:
    torch.save(weights, "a.pth")
    code, said = run("import", "a.pth", "--num_classes", "5")
    assert code == 0
    assert (
        "warning: classifier.weight, classifier.bias, aux.4.weight and 1 more have new, random weights"
        in said
    )
    assert Predictor("a.safetensors").predict(np.zeros((9, 9, 3), np.uint8)).labels.max() < 5


def test_one_class_with_a_sigmoid_is_two_with_a_softmax(run: Run) -> None:
    build = torchvision_models.deeplabv3_mobilenet_v3_large
    theirs = build(weights=None, weights_backbone=None, num_classes=1, aux_loss=True)
    torch.save(theirs.state_dict(), "a.pth")
    code, said = run("import", "a.pth")
    assert code == 0 and "2 classes" in said and "one class with a sigmoid there" in said
    ours = import_checkpoint(theirs.state_dict())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 65, 49), np.float32))
    with torch.inference_mode():
        wanted = theirs.eval()(x)["out"][:, 0].sigmoid()
        torch.testing.assert_close(ours(x).softmax(1)[:, 1], wanted, rtol=0, atol=1e-5)
        theirs.train(), ours.train()
        for module in [*theirs.modules(), *ours.modules()]:
            module.train(not isinstance(module, torch.nn.Dropout | torch.nn.BatchNorm2d))
        torch.testing.assert_close(
            F.interpolate(ours.scores(x)["aux"], x.shape[2:], mode="bilinear").softmax(1)[:, 1],
            theirs(x)["aux"][:, 0].sigmoid(),
            rtol=0,
            atol=1e-5,
        )
    assert Predictor("a.safetensors").predict(np.zeros((9, 9, 3), np.uint8)).names == ("class_0", "class_1")


def test_an_auxiliary_head_of_other_classes_is_left_out(run: Run) -> None:
    """Who trains torchvision's published weights on classes of their own often changes the classifier alone."""
    build = torchvision_models.deeplabv3_mobilenet_v3_large
    theirs = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 65, 49), np.float32))
    for classes in (7, 1):
        theirs.classifier[4] = torch.nn.Conv2d(256, classes, 1)
        torch.save(theirs.state_dict(), "a.pth")
        code, said = run("import", "a.pth", "--overwrite")
        assert code == 0 and f"tells 21 classes, the classifier {classes}: left out" in said
        ours = import_checkpoint("a.pth")
        assert len(ours.report.left_out) == 8  # two convolutions and a batch norm
        with torch.inference_mode():
            logits = ours(x)
            wanted = theirs.eval()(x)["out"]
            if classes == 1:
                logits = logits[:, 1:] - logits[:, :1]
            torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels(weights: dict[str, torch.Tensor], channels: int) -> None:
    build = torchvision_models.deeplabv3_mobilenet_v3_large
    theirs = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    theirs.load_state_dict(weights)
    theirs.backbone["0"][0] = torch.nn.Conv2d(channels, 16, 3, 2, 1, bias=False)
    ours = import_checkpoint(theirs.state_dict())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, channels, 65, 49), np.float32))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs.eval()(x)["out"], rtol=0, atol=1e-5)
    assert ours.config.in_channels == channels


def test_a_missing_head_is_an_error_unless_allowed(weights: dict[str, torch.Tensor], run: Run) -> None:
    torch.save({k: v for k, v in weights.items() if k != "classifier.4.bias"}, "a.pth")
    code, said = run("import", "a.pth")
    assert (code, Path("a.safetensors").exists()) == (2, False)
    assert "missing, first classifier.bias (21,)" in said and "--allow-missing head" in said
    assert run("import", "a.pth", "--allow-missing", "head")[0] == 0
    torch.save({k: v for k, v in weights.items() if k != "backbone.0.0.weight"}, "b.pth")
    assert run("import", "b.pth", "--allow-missing", "head")[0] == 2


def test_weights_that_are_not_finite(weights: dict[str, torch.Tensor], run: Run) -> None:
    weights = {name: value.clone() for name, value in weights.items()}
    weights["classifier.1.weight"][3, 2, 1, 0] = float("nan")
    torch.save(weights, "a.pth")
    code, said = run("import", "a.pth")
    assert (code, "classifier.1.weight has values that are not finite" in said) == (2, True)


class RunsCode:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch was_run",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"hello, world, hello"), "no file of weights"),
        (lambda path: path.mkdir(), "a folder without"),
        (lambda path: torch.save({"a": RunsCode()}, path), "refused: its pickle wants to run"),
        (lambda path: torch.save({"epoch": 3}, path), "no dictionary of weights"),
        (
            lambda path: torch.save({"encoder.layer.0.weight": torch.ones(2)}, path),
            "of no source that is known",
        ),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "refused: its pickle wants to run"),
    ],
)
def test_bad_files(make: Callable[[Path], object], message: str, tmp_path: Path, run: Run) -> None:
    make(tmp_path / "x.pth")
    code, said = run("import", "x.pth")
    assert code == 2
    assert "x.pth" in said and message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "torchvison"], "did you mean 'torchvision'"),
        (["--options.foo", "3"], "unknown option of torchvision 'foo'"),
        (["--output_stride", "7"], "output_stride=7 cannot be had"),
    ],
)
def test_bad_options(words: list[str], message: str, weights: dict[str, torch.Tensor], run: Run) -> None:
    torch.save(weights, "a.pth")
    code, said = run("import", "a.pth", *words)
    assert code == 2
    assert message in said


def test_pull_takes_what_is_in_the_cache_and_names_the_file_otherwise(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("atrous.download.TIMEOUT", 0.001)  # also where there is a network
    code, said = run("pull", "torchvision/deeplabv3_mobilenet_v3_large")
    assert code == 2
    place = tmp_path / "hub" / "checkpoints" / "deeplabv3_mobilenet_v3_large-fc3c493d.pth"
    assert f"put it at {place}" in said
    torch.save(weights, place)
    assert run("pull", "torchvision/deeplabv3_mobilenet_v3_large")[0] == 0
    assert Path("deeplabv3_mobilenet_v3_large.safetensors").is_file()


def test_pull_says_what_there_is(run: Run) -> None:
    assert run("pull")[1].split() == zoo.names()
    code, said = run("pull", "torchvision/deeplabv3_resnet11")
    assert (code, "did you mean 'torchvision/deeplabv3_resnet101'" in said) == (2, True)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_export_gives_back_the_same_file(suffix: str, weights: dict[str, torch.Tensor], run: Run) -> None:
    torch.save(weights, "a.pth")
    run("import", "a.pth")
    code, said = run("export", "a.safetensors", "--as", "torchvision", "--out", f"b.{suffix}")
    assert (code, "weights in the names of torchvision" in said) == (0, True)
    back = load_file("b.safetensors") if suffix == "safetensors" else torch.load("b.pth", weights_only=True)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert run("export", "a.safetensors", "--as", "torchvision", "--out", f"b.{suffix}")[0] == 2


def test_export_of_what_the_project_cannot_hold(scene_checkpoint: Path, run: Run) -> None:
    code, said = run("export", str(scene_checkpoint), "--as", "torchvision")
    assert (code, "torchvision" in said) == (2, True)
    assert run("export", str(scene_checkpoint), "--as", "torchvision", "--out", "x.onnx")[0] == 2
    assert not list(Path().iterdir())


def test_a_checkpoint_of_ours_needs_no_import(scene_checkpoint: Path, run: Run) -> None:
    code, said = run("import", str(scene_checkpoint))
    assert code == 2
    assert "a checkpoint of atrous already: give it (or hub:OWNER/NAME) as it is" in said


def test_classes_are_named_on_import(weights: dict[str, torch.Tensor], run: Run) -> None:
    two = {
        k: v[:2] if k.startswith(("classifier.4.", "aux_classifier.4.")) else v for k, v in weights.items()
    }
    torch.save(two, "two.pth")
    Path("names.txt").write_text("sky\nold wall\n")
    Path("colours.csv").write_text("name,r,g,b\nsky,1,2,3\nwall,4,5,6\nvoid,0,0,0\n")
    for given, names, colour in (
        ("[rust, steel]", ("rust", "steel"), (128, 0, 0)),
        ("names.txt", ("sky", "old wall"), (128, 0, 0)),
        ("colours.csv", ("sky", "wall"), (4, 5, 6)),
    ):
        assert run("import", "two.pth", "--classes", given, "--overwrite")[0] == 0
        labels = metadata_of(load("two.safetensors")).labels
        assert (labels.names, labels.palette[1]) == (names, colour)
    before = Path("two.safetensors").read_bytes()
    for given, message in (
        ("[sky]", "1 class names (sky), but the model has 2 classes"),
        ("none.txt", "none.txt: no such file"),
        ("[sky, sky]", "expected names, each once"),
    ):
        code, said = run("import", "two.pth", "--classes", given, "--overwrite")
        assert code == 2 and message in said
    assert Path("two.safetensors").read_bytes() == before
    code, _ = run("import", "two.pth", "--num_classes", "3", "--classes", "[a, b, c]", "--overwrite")
    assert (code, metadata_of(load("two.safetensors")).labels.names) == (0, ("a", "b", "c"))
