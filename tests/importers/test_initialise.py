"""`--init FILE`: a training that starts from somebody's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models.segmentation as torchvision_models

import atrous
from atrous.cli import main
from atrous.data.labels import VOC, Labels
from atrous.errors import InputError
from atrous.importers.initialise import initialise
from atrous.models import create_model
from importers.tflite_writer import Writer, write_deeplab
from parity.seeded import draw_into

BACKBONE = "mobilenet_v3_large"


def no_pictures() -> torch.Tensor:
    raise AssertionError("nothing is folded here")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = torchvision_models.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=7
    )
    path = tmp_path_factory.mktemp("init") / "deeplab.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def test_the_whole_model_where_it_fits(file: Path) -> None:
    options: dict[str, Any] = {"extra_conv": True, "atrous_rates": (12, 24, 36)}
    network = create_model("deeplab_v3", BACKBONE, num_classes=7, **options)
    taken = initialise(network, file, no_pictures)
    assert not taken.new
    expected = atrous.import_checkpoint(file).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_backbone_and_what_else_fits(file: Path) -> None:
    torch.manual_seed(0)
    network = create_model("deeplab_v3plus", BACKBONE, num_classes=5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taken = initialise(network, file, no_pictures)
    theirs = torch.load(file, weights_only=True)["model"]
    assert torch.equal(network.backbone.features[0][0].weight, theirs["backbone.0.0.weight"])
    assert all(name.startswith("backbone.") == (name in taken.taken) for name in taken.taken + taken.new)
    assert torch.equal(network.state_dict()["classifier.weight"], before["classifier.weight"])
    assert f"({'torchvision'}): {len(taken.taken)} of" in str(taken)
    assert "new: aspp.branches.0.0.weight" in str(taken)


def test_other_input_channels(file: Path) -> None:
    network = create_model("deeplab_v3plus", BACKBONE, num_classes=5, in_channels=1)
    initialise(network, file, no_pictures)
    theirs = torch.load(file, weights_only=True)["model"]["backbone.0.0.weight"]
    torch.testing.assert_close(network.backbone.features[0][0].weight.data, theirs.sum(1, keepdim=True))


def test_a_checkpoint_of_ours(scene_checkpoint: Path, tmp_path: Path) -> None:
    network = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=4, width=0.5)
    taken = initialise(network, scene_checkpoint, no_pictures)
    assert taken.source == "atrous"
    assert taken.new == ["classifier.weight", "classifier.bias"]
    assert torch.equal(
        network.aspp.project[0].weight, atrous.load(scene_checkpoint).state_dict()["aspp.project.0.weight"]
    )


def test_options_that_differ_are_said(scene_checkpoint: Path) -> None:
    network = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=9, width=0.5, padding="same")
    assert "trained with padding='its default', this backbone has 'same'" in str(
        initialise(network, scene_checkpoint, no_pictures)
    )


def test_another_backbone_is_an_error(file: Path, scene_checkpoint: Path) -> None:
    for path, words in ((file, f"starts a {BACKBONE}"), (scene_checkpoint, "starts a mobilenet_v2")):
        network = create_model("deeplab_v3", "resnet18")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(
            InputError, match=rf"{words}, this network has resnet18: \d+ of its weights do not fit"
        ):
            initialise(network, path, no_pictures)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(InputError, match=r"first backbone\.features\.0\.0\.weight"):
        initialise(create_model("deeplab_v3plus", "mobilenet_v2"), scene_checkpoint, no_pictures)


def test_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = f"--model deeplab_v3plus --backbone {BACKBONE} --crop_size 33 --batch_size 2 --iterations 1 --workers 0"
    options = ["--data_options.size", "[64, 64]", "--max_val", "1", "--device", "cpu"]
    main(["train", "scenes", "--init", str(file), "--out", str(out), *words.split(), *options])
    said = " ".join(capsys.readouterr().out.split())
    assert "(torchvision)" in said and "of the backbone; new: aspp" in said
    assert atrous.load(out / "last.safetensors").config.backbone == BACKBONE


@pytest.mark.parametrize("turned", [False, True])
def test_the_classifier_of_a_tflite_file_is_that_of_its_classes(turned: bool, tmp_path: Path) -> None:
    """Of 21 classes the file tells no names: they are VOC's. Here background and train have changed places."""
    options: dict[str, Any] = {"num_classes": 21, "width": 0.125, "divisible_by": 1, "channels": 8}
    options |= {"padding": "same", "atrous_rates": (), "align_corners": True}
    file = tmp_path / "a.tflite"
    file.write_bytes(
        write_deeplab(Writer((64, 96)), draw_into(create_model("deeplab_v3", "mobilenet_v2", **options)))
    )
    network = create_model("deeplab_v3", "mobilenet_v2", **options)
    before = network.state_dict()["classifier.weight"].clone()
    names = [VOC.names[-1], *VOC.names[1:-1], VOC.names[0]] if turned else VOC.names
    taken = initialise(
        network, file, lambda: torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8), Labels.named(names)
    )
    theirs = atrous.import_checkpoint(file).state_dict()["classifier.weight"]
    assert torch.equal(network.state_dict()["classifier.weight"], before if turned else theirs)
    assert ("classifier.weight" in taken.new) == turned
    assert ("class 0 is 'background' there and 'tvmonitor' here" in str(taken)) == turned
