"""The report's figures against those of `evaluate`; what it refuses; that it loads nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.data import open_dataset
from atrous.evaluation import evaluate
from atrous.predict import Predictor
from atrous.report.charts import largest_confusions, ticks
from atrous.report.page import picked


@pytest.fixture
def run(scene_checkpoint: Path, tmp_path: Path) -> Path:
    """A run folder as training leaves it."""
    folder = tmp_path / "a <b>&run"
    folder.mkdir()
    shutil.copy(scene_checkpoint, folder / "best.safetensors")
    (folder / "recipe.yaml").write_text("data: scenes\nval_split: val\niterations: 20\nloss: <ce>\n")
    header = "iteration,epoch,seconds,loss,learning_rate,miou,pixel_accuracy"
    (folder / "log.csv").write_text(f"{header}\n10,0,1,2.5,0.1,,\n10,0,1,,,0.25,0.5\n20,1,2,1.5,0.1,,\n")
    return folder


def test_the_figures_are_those_of_evaluate(run: Path, refused: Callable[..., str]) -> None:
    main(["report", str(run), "--limit", "5"])
    page = (run / "report.html").read_text()
    predictor, data = Predictor(run / "best.safetensors"), open_dataset("scenes", "val")
    expected = evaluate(predictor, data, 5, trimap=[1, 2, 5, 10, 20, 40], boundary_share=0.02)
    cards = re.findall(r'<div class="card[^"]*"><b>([\d.]+)</b>', page)
    assert cards == [
        f"{100 * value:.2f}"
        for value in (
            expected.miou,
            expected.pixel_accuracy,
            expected.mean_accuracy,
            expected.frequency_weighted_iou,
            expected.boundary_miou or 0,
        )
    ]
    bars = re.findall(r'<span class="name">([^<]*)</span>.*?<span class="figure">([^<]*)</span>', page)
    ious = zip(expected.names, expected.per_class_iou, strict=True)
    assert dict(bars) == {n: "absent" if iou is None else f"{100 * iou:.1f}" for n, iou in ious}
    assert ", ".join(f"{w} px {100 * m:.1f}" for w, m in expected.trimap_miou.items()) in page
    assert "2.5" in page and "&lt;ce&gt;" in page
    assert "a &lt;b&gt;&amp;run" in page and "<b>&run" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:image/jpeg)|url\(|@import|<script", page)
    assert page.count("data:image/jpeg") == 5 * 4
    assert len(page.encode()) < 5_000_000
    assert "exists already" in refused(["report", str(run), "--limit", "5"])


def test_two_runs_side_by_side(
    run: Path, scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "two.html"
    words = ["report", str(run), str(scene_checkpoint), "scenes", "--limit", "4", "--out", str(out)]
    main(words)
    page = out.read_text()
    assert len(re.findall("<b class=s[01]>", page)) == 10
    assert page.count("data:image/jpeg") == 4 * 6
    assert "exists already" in refused(words)


def test_what_cannot_be_reported(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such checkpoint" in refused(["report", "gone.safetensors", "scenes"])
    assert "which models?" in refused(["report", "scenes"])
    (run / "recipe.yaml").write_text("data: /gone\niterations: 30\n")
    assert "/gone, which is not there: if it moved" in refused(["report", str(run)])
    assert "ends in .html" in refused(["report", str(run), "scenes", "--out", "a.pdf"])
    main(["report", str(run), "scenes", "--limit", "1"])
    assert "not finished (iteration 20 of 30)" in capsys.readouterr().out
    (run / "best.safetensors").unlink()
    assert "no best.safetensors yet" in refused(["report", str(run)])


def test_confusions_in_words() -> None:
    counts = np.array([[90, 10, 0], [0, 50, 50], [1, 0, 0]]) * 1000
    counts[2, 0] = 1
    assert largest_confusions(counts, ["a", "b", "c"]) == [
        "50.0% of b is taken for c",
        "10.0% of a is taken for b",
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 36, 100])
def test_no_picture_is_shown_twice(count: int) -> None:
    scores = list(np.random.default_rng(0).permutation(count) / 100)
    best, median, worst = picked(scores)
    shown = [*best, *median, *worst]
    assert len(set(shown)) == len(shown) == min(count, 36)
    assert [scores[i] for i in best] == sorted(scores)[::-1][: len(best)]
    assert [scores[i] for i in worst] == sorted(scores)[: len(worst)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.731, 0.749), (5, 5), (-3, 2300), (0, 0)])
def test_ticks_enclose(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low <= high <= marks[-1] and len(marks) >= 2
    assert np.ptp(np.diff(marks)) < 1e-9
    assert json.dumps(marks)


def test_many_noisy_pictures_with_odd_names_stay_below_five_megabytes(
    scene_checkpoint: Path, tmp_path: Path
) -> None:
    """Noise is what JPEG packs worst."""
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "odd" / part / kind).mkdir(parents=True)
    for index in range(41):
        part = "val" if index else "train"
        name = f"{index:02d} <i>&amp'\".png"
        Image.fromarray(draw.integers(0, 256, (120, 160, 3), np.uint8)).save(
            tmp_path / "odd" / part / "images" / name
        )
        Image.fromarray(draw.integers(0, 9, (120, 160), np.uint8)).save(
            tmp_path / "odd" / part / "masks" / name
        )
    out = tmp_path / "odd.html"
    main(["report", str(scene_checkpoint), str(tmp_path / "odd"), "--out", str(out)])
    page = out.read_text()
    assert page.count("data:image/jpeg") == 36 * 4
    assert len(page.encode()) < 5_000_000
    assert "<i>" not in page.replace("<i style", "") and "&lt;i&gt;&amp;amp" in page
