"""What "auto" is on a CPU: the winner of a trial, kept; torch where a trial does not pay or cannot be kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import atrous
from atrous.cli import main
from atrous.errors import InputError
from atrous.predict import Predictor
from atrous.runtimes import choice
from atrous.runtimes.choice import PAYS_FROM, Choice, choose_runtime

CPU = torch.device("cpu")
MANY = PAYS_FROM["openvino"]


class Other(nn.Module):
    """Stands for a converted network."""


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """OpenVINO is there; the times are given, and what was converted or timed is listed."""

    def begin(torch_time: float, other_time: float | InputError) -> list[str]:
        seen: list[str] = []

        def converted(_model: nn.Module, runtime: str, _precision: str, _source: Path) -> nn.Module:
            seen.append(runtime)
            if isinstance(other_time, InputError):
                raise other_time
            return Other()

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(choice, "_candidates", lambda *_: ["openvino"])
        monkeypatch.setattr(choice, "_here", lambda *given: "here-" + given[0])
        monkeypatch.setattr(choice, "converted", converted)
        monkeypatch.setattr(
            choice, "_trial", lambda network: other_time if isinstance(network, Other) else torch_time
        )
        return seen

    return begin


def test_the_fastest_is_kept_and_not_tried_again(
    scene_checkpoint: Path, trial: Callable[..., list[str]]
) -> None:
    model = atrous.load(scene_checkpoint)
    seen = trial(70.0, 30.0)
    first = choose_runtime(model, CPU, "fp32", scene_checkpoint, MANY)
    assert first == Choice("openvino", {"torch": 70.0, "openvino": 30.0}, new=True)
    assert "torch 70 ms, openvino 30 ms" in str(first)
    again = choose_runtime(model, CPU, "fp32", scene_checkpoint, 1)  # one picture takes what is there
    assert again == first._replace(new=False)
    assert seen == ["openvino"]
    trial(30.0, 70.0)
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint, MANY).runtime == "openvino"
    assert choose_runtime(model, CPU, "bf16", scene_checkpoint, MANY).runtime == "torch"


def test_a_few_pictures_do_not_pay(scene_checkpoint: Path, trial: Callable[..., list[str]]) -> None:
    model = atrous.load(scene_checkpoint)
    seen = trial(70.0, 30.0)
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint, MANY - 1) == Choice("torch")
    assert choose_runtime(model, CPU, "fp32", None) == Choice("torch")
    assert choose_runtime(model, torch.device("meta"), "fp32", scene_checkpoint) == Choice("torch")
    assert not seen
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint).runtime == "openvino"  # not said: many


def test_what_cannot_be_converted_or_kept(
    scene_checkpoint: Path, trial: Callable[..., list[str]], tmp_path: Path
) -> None:
    model = atrous.load(scene_checkpoint)
    seen = trial(70.0, InputError("a layer that it does not know"))
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint) == Choice("torch", {"torch": 70.0}, new=True)
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint).runtime == "torch"
    assert seen == ["openvino"]  # nor tried a second time
    (kept,) = (tmp_path / "cache" / "atrous").iterdir()
    kept.write_text('{"runtime": ')  # a job that was killed
    trial(70.0, 30.0)
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint).runtime == "openvino"
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("no folder")
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint) == Choice("torch")


def test_the_first_of_two_processes_decides(
    scene_checkpoint: Path, trial: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = atrous.load(scene_checkpoint)
    trial(70.0, 30.0)
    choose_runtime(model, CPU, "fp32", scene_checkpoint)
    read, asked = choice._read, []

    def not_there_at_first(note: Path) -> Choice | None:
        asked.append(note)
        return None if len(asked) == 1 else read(note)

    monkeypatch.setattr(choice, "_read", not_there_at_first)
    trial(30.0, 70.0)  # this process would have found torch
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint).runtime == "openvino"
    assert len(asked) == 2


def test_a_rounding_model_stays_with_torch(
    scene_checkpoint: Path, trial: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion leaves the rounding of an imported quantised file out."""
    model = atrous.load(scene_checkpoint)
    rounding = replace(model.config, fake_quantize={"classifier": [0.1, 3]})
    monkeypatch.setattr(choice, "config_of", lambda _: rounding)
    seen = trial(70.0, 30.0)
    assert choose_runtime(model, CPU, "fp32", scene_checkpoint) == Choice("torch")
    assert not seen


@pytest.mark.parametrize("verb", ["report {} scenes --limit 1", "crf search {} scenes --pictures 1"])
def test_every_verb_says_how_few_pictures_there_are(
    verb: str, scene_checkpoint: Path, tmp_path: Path, trial: Callable[..., list[str]]
) -> None:
    seen = trial(70.0, 30.0)
    shutil.copy(scene_checkpoint, tmp_path / "m.safetensors")
    main([*verb.format(tmp_path / "m.safetensors").split(), "--data_options.size", "[48, 64]"])
    assert seen == []


def test_a_folder_is_converted_for_once(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(PAYS_FROM, "openvino", 3)
    words = [
        "evaluate",
        str(scene_checkpoint),
        "scenes",
        "--json",
        str(tmp_path / "s.json"),
        "--overwrite",
        "--limit",
    ]
    main([*words, "2"])
    assert "runtime" not in capsys.readouterr().out
    main([*words, "3"])
    printed = capsys.readouterr().out
    assert printed.count(" from now on (a trial at 321x321: torch ") == 1
    kept = [path for path in (tmp_path / "cache" / "atrous").iterdir() if path.is_file()]  # beside loops/
    assert {path.suffix for path in kept} == {".xml", ".bin", ".json"}
    (note,) = (tmp_path / "cache" / "atrous").glob("*.json")
    milliseconds = json.loads(note.read_text())["milliseconds"]
    assert set(milliseconds) == {"torch", "openvino"}
    fastest = min(milliseconds, key=milliseconds.__getitem__)
    assert json.loads(note.read_text())["runtime"] == fastest
    main([*words, "3"])
    assert "from now on" not in capsys.readouterr().out
    assert Predictor(scene_checkpoint, pictures=1).choice.runtime == fastest
