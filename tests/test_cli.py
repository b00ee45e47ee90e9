from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from atrous import terminal
from atrous.cli import VERBS, main


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_without_torch(flag: str) -> None:
    code = (
        f"import sys; sys.argv = ['atrous', '{flag}']\n"
        "try:\n    from atrous.cli import main; main()\n"
        "except SystemExit:\n    sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "atrous" in result.stdout


def test_no_word_at_all_is_answered_by_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert all(re.search(rf"^ +{verb} ", said, re.MULTILINE) for verb in VERBS)


def test_what_data_lacks_is_counted_and_named(pictures_and_masks: Path, refused: Callable[..., str]) -> None:
    (pictures_and_masks / "images" / "3.jpg").write_bytes(b"none")
    assert refused(["data", "check", str(pictures_and_masks)]).endswith(
        "data: 1 problem would break training"
    )
    (pictures_and_masks / "images").rename(pictures_and_masks / "photographs")
    assert "name the two folders with --data_options.images and --data_options.masks" in refused(
        ["evaluate", "box", str(pictures_and_masks)]
    )


def test_a_model_from_a_folder_of_pictures_and_masks(
    pictures_and_masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """train -> evaluate -> predict by the shipped commands on a folder in no special layout."""
    data, run = str(pictures_and_masks), tmp_path / "run"
    options = "--backbone mobilenet_v2 --model_options.width 0.5 --crop_size 32 --batch_size 4 --workers 0"
    main(["data", "check", data])
    main(["train", data, "--out", str(run), "--iterations", "3", *options.split()])
    main(["evaluate", str(run / "best.safetensors"), data])
    main(
        ["predict", str(run / "best.safetensors"), f"{data}/images", "--out", str(tmp_path / "out"), "--flip"]
    )
    printed = capsys.readouterr().out
    scores = json.loads((run / "best_val.json").read_text())
    assert f"mIoU {scores['miou']:.4f}" in printed
    assert scores["pictures"] == 1
    assert scores["protocol"]["mode"] == "direct"
    assert len(list((tmp_path / "out").glob("*.png"))) == 20
    with Image.open(tmp_path / "out" / "3.png") as result:
        assert (result.mode, result.size) == ("P", (56, 40))


def test_print_config_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "scenes", "--model", "pspnet", "--crop-size", "65", "--print_config"])
    text = capsys.readouterr().out
    (tmp_path / "r.yaml").write_text(text)
    main(["train", "scenes", "--recipe", str(tmp_path / "r.yaml"), "--print_config"])
    assert capsys.readouterr().out == text
    assert "crop_size: 65" in text
    assert "rotation: 10.0" in text


def test_info_counts(capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", "deeplab_v1"])
    assert "20.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "which data"),
        (["train", "gone"], "gone: no such folder"),
        (["train", "scenes", "--modle", "pspnet"], "did you mean --model?"),
        (["train", "scenes", "--recip", "scenes"], "did you mean --recipe?"),
        (["train", "scenes", "--model", "deeplab_v3plas"], "did you mean 'deeplab_v3plus'?"),
        (["train", "scenes", "--backbone", "resnet5"], "did you mean 'resnet50'?"),
        (["train", "scenes", "--model_options.separabel", "true"], "did you mean 'separable'?"),
        (["train", "scenes", "--epochs", "many"], "--epochs many: wanted a number"),
        (["train", "scenes", "--device", "toaster"], "toaster"),
        (["train", "scenes", "--recipe", "gone.yaml"], "gone.yaml: no such recipe"),
        (["evaluate", "gone.safetensors", "scenes"], "gone.safetensors: no such checkpoint"),
        (["info", "deeplab_v4"], "unknown model 'deeplab_v4'"),
        (
            ["info", "deeplab_v3plus", "--output_stride", "2"],
            "ResNet at output stride 2 has no features at stride 4",
        ),
    ],
)
def test_one_line_says_what_is_wrong(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(words)
    assert message in error
    assert not list(tmp_path.iterdir())


def test_another_number_of_classes(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.new(mode, (8, 8), i if mode == "L" else 0).save(tmp_path / kind / f"{i}.png")
    error = refused(["evaluate", str(scene_checkpoint), str(tmp_path)])
    assert "the model knows 9 classes" in error
    assert "the data 2" in error


def test_a_broken_picture_does_not_stop_the_rest(
    scene_checkpoint: Path, photo: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    out = tmp_path / "out"
    error = refused(["predict", str(scene_checkpoint), str(tmp_path), "--out", str(out)])
    assert "broken.jpg" in error
    assert sorted(path.name for path in out.glob("*.png")) == ["photo.png", "photo_overlay.png"]


def test_results_are_not_overwritten(
    scene_checkpoint: Path, photo: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ["predict", str(scene_checkpoint), str(photo), "--out", str(tmp_path / "out")]
    main(command)
    assert "exists already" in refused(command)
    main([*command, "--overwrite"])


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "RGBA", "P"])
def test_every_kind_of_picture_is_segmented(scene_checkpoint: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (19, 23), 100).save(path)
    main(["predict", str(scene_checkpoint), str(path), "--out", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "a.png") as result:
        assert result.size == (19, 23)


def test_a_folder_nobody_can_write_to(
    scene_checkpoint: Path, photo: Path, refused: Callable[..., str]
) -> None:
    error = refused(["predict", str(scene_checkpoint), str(photo), "--out", str(photo / "out")])
    assert "cannot write there" in error


def test_the_time_left_of_work_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken up at step 900 of 1000: 16 steps in 32 seconds leave 168 seconds for the other 84."""
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    bar = terminal.Bar("train")
    for done in range(901, 921):
        clock[0] += 2
        bar.show(done, 1000)
    assert "train 916/1000   168 s left" in capsys.readouterr().out  # a line every 15 seconds
