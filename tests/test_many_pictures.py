"""Many pictures: order and memory, shards, several processes, and scores over all of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous import evaluation
from atrous import segment_files as many
from atrous.cli import main
from atrous.errors import InputError
from atrous.finding import find_pictures
from atrous.predict import Predictor
from atrous.record import Record
from drawn_photos import draw, records
from forkserver import PROCESSES


def test_batches_write_what_single_pictures_do_in_a_fixed_order(
    scene_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    predictor = Predictor(scene_checkpoint)
    orders = []
    for folder in ("a", "b"):
        main(
            f"predict {scene_checkpoint} {photos} --out {tmp_path / folder} --batch_size 3 --probabilities".split()
        )
        orders.append([entry["done"] for entry in records(tmp_path / folder) if "done" in entry])
    assert orders[0] == orders[1] == ["1", "2", "4", "0", "3", "6", "5"]
    for number in range(7):
        expected = predictor.predict(photos / f"{number}.png", probabilities=True)
        found = np.load(tmp_path / "a" / f"{number}_probabilities.npy")
        np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)
        with Image.open(tmp_path / "a" / f"{number}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), found.argmax(0))


def test_at_most_so_many_pictures_are_in_memory(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read and not yet written, with every picture of a size of its own, so that batches must wait."""
    files = [draw(tmp_path / "many" / f"{i:02}.png", (8 + i, 9)) for i in range(40)]
    alive, most = 0, 0
    read, put = many.read_image, many.put_in_place

    def counting(*arguments: Any) -> Any:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return read(*arguments)

    def released(written: dict[Path, Path]) -> None:
        nonlocal alive
        alive -= 1
        put(written)

    monkeypatch.setattr(many, "read_image", counting)
    monkeypatch.setattr(many, "put_in_place", released)
    out = tmp_path / "out"
    outcome = many.segment_files(
        Predictor(scene_checkpoint), find_pictures(files), out, Record(out, {}), batch_size=2, threads=1
    )
    assert outcome.done == 40
    # read ahead 2 + 1, waiting for their size 4 * 2, being written 2 + 1
    assert most <= 3 + 8 + 3


def test_shards_of_an_array_job(scene_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in ("1/3", "2/3", "3/3"):
        main(f"predict {scene_checkpoint} {photos} --out {out} --shard {part}".split())
    assert sorted(path.name for path in out.glob("*.jsonl")) == [
        f"predictions-{i}-of-3.jsonl" for i in (1, 2, 3)
    ]
    done = [entry["done"] for entry in records(out) if "done" in entry]
    assert sorted(done) == [str(i) for i in range(7)]
    main(f"predict {scene_checkpoint} {photos} --out {out} --resume".split())  # in one, and nothing is left
    assert len([entry for entry in records(out) if "done" in entry]) == 7
    for bad in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(SystemExit):
            main(f"predict {scene_checkpoint} {photos} --out {out} --shard {bad}".split())


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def one_of_two(rank: int, port: int, words: list[str], folder: Path) -> None:
    """What `torchrun --nproc_per_node 2 -m atrous ...` starts."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        for ending, redirect in (("out", contextlib.redirect_stdout), ("err", contextlib.redirect_stderr)):
            stack.enter_context(redirect(stack.enter_context((folder / f"{rank}.{ending}").open("w"))))
        main(words)


def two_processes(words: list[str], folder: Path) -> list[Ended]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [PROCESSES.Process(target=one_of_two, args=(rank, port, words, folder)) for rank in range(2)]
    for process in started:
        process.start()
    ended = []
    for rank, process in enumerate(started):
        process.join()
        said = [(folder / f"{rank}.{ending}").read_text() for ending in ("out", "err")]
        ended.append(Ended(process.exitcode, *said))
    return ended


def test_two_processes_predict_each_picture_once_and_report_what_is_broken(
    scene_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_text("no picture")
    out = tmp_path / "out"
    first, second = two_processes(
        ["predict", str(scene_checkpoint), str(photos), "--out", str(out)], tmp_path
    )
    assert (first.returncode, second.returncode) == (2, 0)
    assert f"7 of 8 pictures -> {out}" in first.stdout
    assert "broken.jpg: not a picture" in first.stderr
    assert second.stdout == ""
    done = {
        path.name: [
            json.loads(line)["done"] for line in path.read_text().splitlines() if "done" in json.loads(line)
        ]
        for path in out.glob("predictions-*.jsonl")
    }
    assert sorted(done) == ["predictions-1-of-2.jsonl", "predictions-2-of-2.jsonl"]
    assert min(map(len, done.values())) >= 3
    assert sorted(name for part in done.values() for name in part) == [str(i) for i in range(7)]


def test_two_processes_add_up_their_scores_exactly(scene_checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(scene_checkpoint), "scenes", "--data_options", '{"length": 5, "size": [48, 64]}']
    words += ["--trimap", "1,5", "--boundary_iou"]
    main([*words, "--json", str(tmp_path / "one.json")])
    first, second = two_processes([*words, "--json", str(tmp_path / "two.json")], tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two
    assert one["pictures"] == 5
    assert np.sum(one["confusion"]) == 5 * 48 * 64
    assert list(one["trimap_miou"]) == ["1", "5"]


@pytest.mark.parametrize("limit", [-1, 0])
def test_evaluate_on_no_picture_is_refused(
    limit: int, scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    data = atrous.open_dataset("scenes", "val", length=5, size=(48, 64))
    message = f"limit {limit} must be at least 1"
    with pytest.raises(InputError, match=message):
        atrous.evaluate(Predictor(scene_checkpoint), data, limit)
    scores = tmp_path / "scores.json"
    words = ["evaluate", str(scene_checkpoint), "scenes", f"--limit={limit}", "--json", str(scores)]
    assert message in refused(words)
    assert not scores.exists()


def test_only_the_same_measurement_replaces_scores(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "m.safetensors"
    shutil.copy(scene_checkpoint, checkpoint)
    scores = tmp_path / "m_val.json"
    data = ["scenes", "--data_options", '{"length": 3, "size": [48, 64]}']
    words = ["evaluate", str(checkpoint), *data]
    main(words)
    full = scores.read_text()
    main([*words, "--limit", "3", "--trimap", "1"])  # the same pictures, and more about them
    assert json.loads(scores.read_text())["confusion"] == json.loads(full)["confusion"]
    main(words)
    assert scores.read_text() == full

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("measured before it was refused"))
        for flags, differs in (
            (["--limit", "1", "--flip"], "pictures, protocol"),
            (["--precision", "bf16"], "precision"),
            (["--split", "test", "--json", str(scores)], "split"),
            (["--data_options.seed", "1"], "data_options"),
        ):
            assert (
                f"m_val.json: holds the scores of another measurement (in {differs}); give another --json"
                in (refused([*words, *flags]))
            )
        atrous.save(atrous.load(), checkpoint)
        assert "(in sha256, protocol)" in refused([*words, "--longer_side", "30"])
        notes = tmp_path / "notes.json"
        notes.write_text("not of ours")
        assert "notes.json: exists already, and holds no scores" in refused([*words, "--json", str(notes)])
    assert scores.read_text() == full
    shutil.copy(scene_checkpoint, checkpoint)
    main([*words, "--limit", "1", "--overwrite"])
    assert json.loads(scores.read_text())["pictures"] == 1


def test_a_limit_takes_the_first_pictures_and_none_takes_all(scene_checkpoint: Path) -> None:
    data = atrous.open_dataset("scenes", "val", length=3, size=(48, 64))
    predictor = Predictor(scene_checkpoint)
    truth = sum(np.bincount(data[i].mask.numpy().ravel(), minlength=256)[:9] for i in range(2))
    np.testing.assert_array_equal(atrous.evaluate(predictor, data, limit=2).confusion.sum(1), truth)
    assert [atrous.evaluate(predictor, data, limit).pictures for limit in (2, 7, None)] == [2, 3, 3]


def test_evaluate_with_batches_counts_the_same_pixels(scene_checkpoint: Path) -> None:
    data = atrous.open_dataset("scenes", "val", length=5, size=(48, 64))
    predictor = Predictor(scene_checkpoint)
    one, three = (atrous.evaluate(predictor, data, batch_size=size) for size in (1, 3))
    np.testing.assert_array_equal(one.confusion.sum(1), three.confusion.sum(1))
    assert abs(one.confusion - three.confusion).sum() <= 20  # ties up to rounding
    assert one.pictures == three.pictures == 5
