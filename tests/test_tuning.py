"""`atrous crf search`: the search on real CRFs, its resume, and what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import atrous
from atrous.checkpoint import Metadata, load, metadata_of
from atrous.cli import main
from atrous.config import Protocol
from atrous.crf.search import COMBINATIONS
from atrous.data import open_dataset
from atrous.data.pictures import read_image
from atrous.predict import Predictor
from atrous.tuning import Found, search_crf, weights_digest, write_best


class Blurred:
    """In a predictor's place: the truth of the scenes, through a grid of 12 pixels, as soft scores."""

    def __init__(self, data: Any) -> None:
        self.labels, self.metadata = data.labels, Metadata(data.labels)
        self.protocol, self.crf, self.runs = Protocol(), None, 0
        self.truth = {data[i].image.numpy().tobytes(): data[i].mask for i in range(3)}

    def scores(self, image: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        mask = self.truth[image.numpy().tobytes()].long().clamp(max=len(self.labels) - 1)
        truth = F.one_hot(mask, len(self.labels)).permute(2, 0, 1)[None].float()
        coarse = F.interpolate(F.avg_pool2d(truth, 12, ceil_mode=True), mask.shape, mode="bilinear")[0]
        return (4 * coarse).softmax(0)


class Few:
    """The first three pictures of a data set."""

    def __init__(self, data: Any) -> None:
        self.data, self.labels = data, data.labels

    def __len__(self) -> int:
        return 3

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


@pytest.fixture
def scenes() -> Any:
    return Few(open_dataset("scenes", split="val", size=(60, 80)))


def test_finds_parameters_that_sharpen_and_goes_on_where_it_was(scenes: Any, tmp_path: Path) -> None:
    whole = search_crf(Blurred(scenes), scenes, tmp_path / "whole", iterations=3)  # type: ignore[arg-type]
    assert whole.best_miou > whole.plain + 0.02
    assert whole.best_miou == max(miou for _, miou in whole.tried)
    assert 27 < len(whole.tried) <= COMBINATIONS

    def stop(stage: str, done: int, of: int, note: str) -> None:
        if (stage, done) == ("search", 30):
            raise KeyboardInterrupt

    folder, predictor = tmp_path / "parts", Blurred(scenes)
    with pytest.raises(KeyboardInterrupt):
        search_crf(predictor, scenes, folder, iterations=3, progress=stop)  # type: ignore[arg-type]
    with (folder / "results.jsonl").open("a") as file:
        file.write('\n{"parameters": {"pos_w"')  # killed in mid-line
    lines = (folder / "results.jsonl").read_text().count("miou")
    again = search_crf(predictor, scenes, folder, iterations=3)  # type: ignore[arg-type]
    assert again == whole
    assert predictor.runs == 3  # the network ran once a picture
    assert (folder / "results.jsonl").read_text().count("miou") == 1 + len(whole.tried)
    assert lines == 31  # 30 and the one without CRF


def test_another_checkpoint_starts_anew(scenes: Any, tmp_path: Path) -> None:
    predictor = Blurred(scenes)
    search_crf(predictor, scenes, tmp_path, 1, 1, fingerprint="a")  # type: ignore[arg-type]
    search_crf(predictor, scenes, tmp_path, 1, 1, fingerprint="a")  # type: ignore[arg-type]
    assert predictor.runs == 1
    search_crf(predictor, scenes, tmp_path, 1, 1, fingerprint="b")  # type: ignore[arg-type]
    assert predictor.runs == 2


def test_classes_that_are_nowhere_alive_are_not_kept_and_change_no_label(scenes: Any, tmp_path: Path) -> None:
    predictor = Blurred(scenes)
    predictor.scores = (
        lambda image: torch.stack(  # type: ignore[method-assign]
            [torch.full(image.shape[1:], v) for v in (0.6, 0.39995, *[5e-5 / 7] * 7)]
        )
    )
    search_crf(predictor, scenes, tmp_path, 1, 1)  # type: ignore[arg-type]
    with np.load(next(tmp_path.glob("*.npz"))) as kept:
        assert kept["alive"].tolist() == [0, 1]
        assert kept["scores"].shape == (2, 60, 80)


def test_the_best_goes_into_the_checkpoint(scene_checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "with.safetensors"
    best = {"pos_w": 3.0, "pos_xy_std": 2.0, "bi_w": 7.0, "bi_xy_std": 40.0, "bi_rgb_std": 9.0}
    write_best(
        scene_checkpoint, target, Found(0.4, [(best, 0.5)], best, 0.5), 5, {"data": "scenes", "pictures": 2}
    )
    metadata = metadata_of(load(target))
    assert metadata.protocol.crf == {"iter_max": 5, **best}
    assert metadata.scores["crf_search"] == {
        "miou_without": 0.4,
        "miou_with": 0.5,
        "data": "scenes",
        "pictures": 2,
    }
    assert weights_digest(target) == weights_digest(scene_checkpoint)
    # By one runtime: which is faster is tried for each file, and the CRF enlarges what differs.
    plain, refined = (
        Predictor(file, runtime="torch").predict(photo, probabilities=True).probabilities
        for file in (scene_checkpoint, target)
    )
    image = read_image(photo)
    np.testing.assert_allclose(refined, atrous.DenseCRF(5, **best)(image, plain), atol=1e-5)  # type: ignore[arg-type]


def test_command(scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    words = ["--pictures", "1", "--iterations", "1", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    main(["crf", "search", str(scene_checkpoint), "scenes", *words])
    said = " ".join(capsys.readouterr().out.split())
    assert "no CRF" in said
    assert out.exists() == ("predicts with it from now on" in said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.safetensors", "scenes"], "missing.safetensors"),
        (["CKPT", "scenes", "--pictures", "0"], "0 asked"),
    ],
)
def test_bad_input(
    words: list[str], message: str, scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(scene_checkpoint) if w == "CKPT" else w for w in words]
    with pytest.raises(SystemExit) as stop:
        main(["crf", "search", *words, "--cache", str(tmp_path / "cache")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
