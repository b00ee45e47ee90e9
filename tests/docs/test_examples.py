"""The scripts of examples/ run, and what they print is right."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import atrous
from atrous import cli
from atrous.checkpoint import Metadata
from atrous.config import read_recipe, to_dict
from atrous.data import SCENES, Labels
from atrous.heat_map import STRIP
from atrous.info import describe

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = {  # what runs them
    "demo.py": "`make demo`",
    "make_box.py": "needs data: VOC",
    "app_client.py": "tests/app",
    "papers_row.py": "here, with weights that nobody trained",
}


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_run() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert script.name in ELSEWHERE or f'run("{script.name}"' in here, script.name


def test_the_demo_removes_nothing_and_runs_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to its training, whose recipe is found outside a checkout too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(SystemExit) as stop:
        run("demo.py", tmp_path / "mine", monkeypatch=monkeypatch)
    assert stop.value.code == 2
    assert "mine: exists already" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"

    def until_training(words: list[str]) -> None:
        if words[0] == "train":
            command([*words, "--print_config"])
            raise KeyboardInterrupt
        command(words)

    command = cli.main
    monkeypatch.setattr(cli, "main", until_training)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run("demo.py", "new", monkeypatch=monkeypatch)
    settings = yaml.safe_load(capsys.readouterr().out.partition("--out new/run")[2])
    assert settings == {**to_dict(read_recipe("scenes").resolved()), "out": "new/run"}
    assert (tmp_path / "new" / "photos.png").is_file()


def test_predict_array(
    photo: Path, scene_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("predict_array.py", photo, scene_checkpoint, monkeypatch=monkeypatch)
    shares = [float(share) for share in re.findall(r"([\d.]+)% of the picture", capsys.readouterr().out)]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_train_on_folder(
    pictures_and_masks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("train_on_folder.py", pictures_and_masks, tmp_path / "run", 2, monkeypatch=monkeypatch)
    with Image.open(tmp_path / "run" / "first_of_val.png") as labels:
        assert labels.size == (56, 40)
    predictor = atrous.Predictor(tmp_path / "run" / "best.safetensors")
    miou = atrous.evaluate(predictor, atrous.open_dataset(pictures_and_masks, split="val")).miou
    assert f"mIoU {miou:.3f}" in capsys.readouterr().out


def test_own_decoder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("own_decoder.py", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "logits (2, 5, 65, 97)" in printed
    assert float(printed.split("loss ")[1].split(";")[0]) == pytest.approx(
        np.log(5), abs=0.7
    )  # nothing learnt yet


def test_crf_on_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A half that is dark and a half that is light, with scores a few pixels off: the edge moves to the picture's."""
    image = np.zeros((32, 40, 3), np.uint8)
    image[:, 20:] = 200
    right = (np.arange(40) >= 23).astype(np.float32)[None].repeat(32, 0) * 0.6 + 0.2
    Image.fromarray(image).save(tmp_path / "p.png")
    np.save(tmp_path / "s.npy", np.stack([1 - right, right]))
    run("crf_on_scores.py", tmp_path / "p.png", tmp_path / "s.npy", tmp_path, monkeypatch=monkeypatch)
    after = np.asarray(Image.open(tmp_path / "after.png"))
    assert (after == (np.arange(40) >= 20)).all()
    assert f"{3 / 40:.2%}" in capsys.readouterr().out


def test_near_boundaries(
    scene_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("near_boundaries.py", scene_checkpoint, "scenes", 2, monkeypatch=monkeypatch)
    plain = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("network"))
    data = atrous.open_dataset("scenes", split="val")
    metrics = atrous.evaluate(atrous.Predictor(scene_checkpoint), data, 2, trimap=(5,))
    assert f"{metrics.trimap_miou[5]:.3f}" == plain.split()[3]
    assert f"{metrics.miou:.3f}" == plain.split()[-1]


def test_crf_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CRF raises the accuracy of the drawn scores by more than five points, as the page says."""
    run("crf_pictures.py", tmp_path, monkeypatch=monkeypatch)
    figures = {
        line[:28].strip(): float(line[28:]) for line in capsys.readouterr().out.splitlines() if line.strip()
    }
    assert figures["10 iterations"] > figures["scores"] + 0.05
    assert figures["scores"] < figures["1 iteration"] < figures["3 iterations"]
    assert len(list(tmp_path.glob("*.jpg"))) == 3


def test_receptive_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The theoretical fields are `describe`'s, whatever the pictures."""
    run("receptive_fields.py", tmp_path / "fields.jpg", 65, 1, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    for name in ("deeplab_v1", "deeplab_v2", "pspnet", "deeplab_v3", "deeplab_v3plus"):
        model = atrous.create_model(name, "mobilenet_v2")
        assert f" {describe(model, (65, 65)).receptive_field} px" in printed.split(f"of {name} ")[1]
    with Image.open(tmp_path / "fields.jpg") as picture:
        assert picture.size == (3 * 270 + 4 * 8, 2 * (30 + 270 + STRIP + 8))


def test_papers_row(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = atrous.open_dataset("scenes", split="test", length=15)
    monkeypatch.setattr(atrous, "open_dataset", lambda *_, **__: test)
    v1 = atrous.create_model("deeplab_v1", "mobilenet_v2", num_classes=9, width=0.25)
    atrous.save(v1, tmp_path / "v1.safetensors", Metadata(Labels(SCENES.names, SCENES.palette)))
    run(
        "papers_row.py",
        tmp_path / "v1.safetensors",
        scene_checkpoint,
        tmp_path / "row.png",
        monkeypatch=monkeypatch,
    )
    miou = atrous.evaluate(atrous.Predictor(tmp_path / "v1.safetensors"), test).miou
    assert f"DeepLab v1 {miou:.3f}" in capsys.readouterr().out
    assert (tmp_path / "row.png").is_file()
