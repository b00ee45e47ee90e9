"""Folders, globs and lists; order and memory; shards, records and jobs that are killed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous import segment_files as many
from atrous.cli import main
from atrous.errors import InputError
from atrous.finding import find_pictures, part_of
from atrous.predict import Predictor
from atrous.record import Record
from atrous.results import Outputs, refuse_clashes
from atrous.stream import ahead, buckets
from atrous.visualize import Style

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["atrous.train"])


def draw(path: Path, size: tuple[int, int] = (24, 32), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# Finding


def test_a_tree_keeps_its_form(tmp_path: Path) -> None:
    for name in ("b.jpg", "x/a.jpg", "x/a.png", "y/a.jpg", "y/deep/c.JPG", ".hidden.jpg", "out/a.png"):
        draw(tmp_path / "p" / name)
    (tmp_path / "p" / "notes.txt").touch()
    found = find_pictures([tmp_path / "p"], leave_out=tmp_path / "p" / "out")
    assert list(found) == ["b", "x/a_jpg", "x/a_png", "y/a", "y/deep/c"]
    assert found["y/deep/c"] == tmp_path / "p" / "y" / "deep" / "c.JPG"
    assert list(find_pictures([tmp_path / "p" / "x", tmp_path / "p" / "b.jpg"])) == ["a_jpg", "a_png", "b"]


def test_links_are_followed_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    for name in ("p/a.jpg", "p/.ipynb_checkpoints/a.jpg", "far/b.jpg", "p/.x/c.jpg"):
        draw(tmp_path / name)
    (tmp_path / "p" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "far" / "back").symlink_to(tmp_path)
    assert list(find_pictures([tmp_path / "p"])) == ["a", "more/b"]
    assert list(find_pictures([tmp_path / "p" / "*" / "*.jpg"])) == ["loop/a", "more/b"]
    assert list(find_pictures([tmp_path / "p" / "*" / ".x" / "*.jpg", tmp_path / "p" / ".x"])) == [
        "loop/.x/c",
        "c",
    ]


def test_globs_and_lists(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "x/b.png", "y/a.jpg"):
        draw(tmp_path / name)
    assert list(find_pictures([tmp_path / "*" / "a.jpg"])) == ["x/a", "y/a"]
    assert list(find_pictures([tmp_path / "**" / "*.*g"])) == ["x/a", "x/b", "y/a"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# three\nx/a.jpg\n{tmp_path / 'y' / 'a.jpg'}\n\nx/gone.jpg\n")
    found = find_pictures([listed])
    assert found == {
        "x/a": tmp_path / "x" / "a.jpg",
        "y/a": tmp_path / "y" / "a.jpg",
        "x/gone": tmp_path / "x" / "gone.jpg",  # said when it is its turn
    }


def test_a_file_counts_once_and_folders_may_have_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a[1]").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a[1]" / "x.png")
    for pattern in (Path("a[1]"), tmp_path / "a[1]"):
        assert find_pictures([pattern / "*.png"]) == {"x": pattern / "x.png"}
    assert find_pictures([Path("a[1]/x.png"), tmp_path / "a[1]" / "x.png"]) == {"x": Path("a[1]/x.png")}


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ([], ["gone.jpg"], "gone.jpg: no such picture"),
        ([], ["*.jpg"], r"\*\.jpg: no picture has such a name"),
        (["notes.md"], ["."], "no pictures in this folder"),
        (["list.txt"], ["list.txt"], "no picture is named in this list"),
        (["x/a.jpg", "y/a.jpg"], ["x/a.jpg", "y/a.jpg"], r"both would be written as a_jpg\.png"),
        (["a.jpg", "a.png", "a_jpg.png"], ["."], r"both would be written as a_jpg\.png"),
    ],
)
def test_what_cannot_be_found_or_clashes(
    names: list[str], given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    with pytest.raises(InputError, match=message) as error:
        find_pictures(given)
    assert "\n" not in str(error.value)


def test_two_pictures_that_would_be_written_to_one_file() -> None:
    """Whichever of them are large; names alone that look like a result's are none."""
    pictures = {name: Path(f"{name}.jpg") for name in ("x/a", "x/a_overlay", "x/a_overview", "x/a_mask")}
    pictures |= {"x/a_probabilities": Path("x/a_probabilities.jpg"), "a_overview": Path("a_overview.jpg")}

    def clashing(outputs: Outputs, *large: str) -> set[str]:
        """Each pair is asked for alone."""
        found = set()
        for one, other in itertools.combinations(pictures, 2):
            two = {name: pictures[name] for name in (one, other)}
            try:
                refuse_clashes(two, outputs, lambda path: path.stem in large)
            except InputError as error:
                assert str(error).startswith(f"{two[one]} and {two[other]}: both would be written as ")
                found.add(str(error).split(" as ")[1].split(";")[0])
        return found

    plain, masks = Outputs(probabilities=True), Outputs(style=Style("mask"))
    assert clashing(plain) == {"x/a_overlay.png"}
    assert clashing(masks) == {"x/a_mask.png"}
    assert clashing(plain, "a") == {"x/a_overview.png"}
    assert clashing(masks, "a", "a_overview", "a_mask") == set()


def test_a_large_picture_and_one_called_as_its_overview(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """Before any work, and with --overwrite too."""
    monkeypatch.setattr("atrous.large.LARGE", 100)
    monkeypatch.setattr("atrous.large.SMALL_FILE", 1000)
    photos = [draw(tmp_path / "x.png"), draw(tmp_path / "x_overview.png", (3, 4))]
    words = ["predict", str(scene_checkpoint), str(tmp_path), "--out", str(tmp_path / "out"), "--overwrite"]
    assert f"{photos[0]} and {photos[1]}: both would be written as x_overview.png" in refused(words)
    assert not (tmp_path / "out").exists()


def test_parts_hold_each_picture_exactly_once() -> None:
    pictures = {str(i): Path(f"{i}.jpg") for i in range(17)}
    parts = [part_of(pictures, which, 5) for which in range(5)]
    assert sorted(name for part in parts for name in part) == sorted(pictures)
    assert {len(part) for part in parts} == {3, 4}


# Overlap, order and memory


def test_ahead_keeps_the_order_and_its_limit() -> None:
    made, most = 0, 0
    lock = threading.Lock()

    def make(number: int) -> int:
        nonlocal made
        time.sleep(0.002 * (number % 3))  # later ones are done earlier
        with lock:
            made += 1
        if number == 7:
            raise InputError("seven")
        return number * 10

    taken = []
    for index, (number, future) in enumerate(ahead(make, range(20), 3, 5)):
        most = max(most, made - index)
        taken.append("broken" if future.exception() else future.result())
        assert number == index
    assert taken == [i * 10 if i != 7 else "broken" for i in range(20)]
    assert most <= 5


def test_ahead_can_be_left() -> None:
    """The threads end with it."""
    before = threading.active_count()
    for _ in ahead(lambda x: x, range(1000), 2, 4):
        break
    assert threading.active_count() <= before + 2
    stream = ahead(lambda x: x, range(1000), 2, 4)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_buckets_have_one_size_and_hold_each_item_once() -> None:
    sizes = np.random.default_rng(0).integers(0, 6, 200).tolist()
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for item in enumerate(sizes):
            taken += 1
            yield item

    given, waiting = [], []
    for batch in buckets(counted(), lambda item: item[1], 4, 10):
        assert len({size for _, size in batch}) == 1
        assert len(batch) <= 4
        waiting.append(taken - len(given))
        given += batch
    assert sorted(given) == list(enumerate(sizes))
    assert max(waiting) <= 10
    assert list(buckets(iter("aabb"), str, 2, 8)) == [["a", "a"], ["b", "b"]]
    assert list(buckets(iter("abab"), str, 1, 4)) == [["a"], ["b"], ["a"], ["b"]]


# From files to files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{number}.png", (24, 32) if number % 3 else (17, 40), seed=number)
    return tmp_path / "photos"


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("predictions*.jsonl"))
        for line in path.read_text().splitlines()
        if line
    ]


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


def test_resume_does_not_redo_and_keeps_to_the_settings(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = f"predict {scene_checkpoint} {photos} --out {out}".split()
    main(command)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    # as after a kill: 5 was done and is gone since, 6 was begun and is half there, the last line is half written
    (out / "5.png").unlink()
    kept = [line for line in lines if '"done": "6"' not in line]
    (out / "predictions.jsonl").write_text("\n".join(kept) + '\n{"done": "6')
    (out / "6_overlay.png").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("?.png")}
    main([*command, "--resume"])
    assert "7 of 7 pictures" in (printed := capsys.readouterr().out)
    assert "6 of them by an earlier job" in printed
    assert not (out / "5.png").exists()
    assert (out / "6_overlay.png").exists()
    assert {p.name for p in out.glob("?.png") if p.stat().st_mtime_ns != times[p.name]} == {"6.png"}
    assert [entry["done"] for entry in records_of_whole_lines(out) if "done" in entry][-1] == "6"

    with pytest.raises(
        SystemExit
    ) as stop:  # with a flip it is another job, whose results would replace these
        main([*command, "--resume", "--flip"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("exists already") == 7  # 5 has an overlay


def test_resume_leaves_out_the_very_pictures_that_were_finished(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Other pictures of the same names, and a picture that was changed, are clashes, and never taken for done."""
    for seed, name in enumerate(("A/0.png", "A/1.png", "B/0.png", "B/1.png")):
        draw(tmp_path / name, seed=seed)
    words = ["--out", str(tmp_path / "out"), "--resume"]
    first, second = (["predict", str(scene_checkpoint), str(tmp_path / name), *words] for name in "AB")
    main(first)
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    said = refused(second, 2).splitlines()
    for name, line in zip("01", said, strict=True):
        assert f"{name}.png: exists already, of {tmp_path / 'A' / name}.png; give another --out" in line
    draw(tmp_path / "A" / "1.png", seed=9)
    assert "1.png: exists already, of this picture before it was changed" in refused(first)
    assert before == {path: path.read_bytes() for path in before}


def test_a_checkpoint_that_was_trained_on_is_another(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """At the same path; its results are not mixed with those of before."""
    model = atrous.load(scene_checkpoint)
    atrous.save(model, path := tmp_path / "model.safetensors")
    words = f"predict {path} {photos} --out {tmp_path / 'out'}".split()
    main([*words, "--shard", "1/2"])
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    atrous.save(model, path)
    said = refused([*words, "--resume"], 4).splitlines()
    assert all("exists already, by other settings" in line for line in said)
    assert len(list((tmp_path / "out").glob("?.png"))) == 7, "the others are predicted"
    last = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])["settings"]
    assert last["checkpoint"] == {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_results_among_the_pictures_are_not_predicted(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--out is the folder of the pictures; they are given as a folder, by a pattern, or as what a shell makes of *."""
    for number, name in enumerate(("a.jpg", "b.jpg", "sub/a.jpg", "sub/deep/c.jpg")):
        draw(tmp_path / name, seed=number)
    monkeypatch.chdir(tmp_path)
    predict = ["predict", str(scene_checkpoint)]
    main([*predict, ".", "--out", "."])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert len(before) == 8
    draw(tmp_path / "sub" / "new.png", seed=4)
    capsys.readouterr()
    for given, pictures in (([str(tmp_path / "*.*g")], 2), (["a.jpg", "a.png", "a_overlay.png", "b.jpg"], 2)):
        main([*predict, *given, "--out", ".", "--resume"])
        assert f"{pictures} of {pictures} pictures -> ., {pictures} of them by an" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    found = find_pictures(["."], leave_out=Path())
    assert list(found) == ["a", "b", "sub/a", "sub/deep/c", "sub/new"]


def test_results_above_the_pictures(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """A pattern below the folder of the results is looked for; where only results are found, that is said."""
    draw(tmp_path / "sub" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    main(["predict", str(scene_checkpoint), "sub/*.jpg", "--out", "."])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a.png", "a_overlay.png"]
    assert "are results that were written there" in refused(["predict", "a.png", "--out", ".", "--resume"])


def test_overwriting_by_other_settings_ends_what_was_done_before(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Whichever process's file the record is in."""
    out = tmp_path / "out"
    words = f"predict {scene_checkpoint} {photos} --out {out}".split()
    main(words)
    whole = {path: path.read_bytes() for path in out.glob("?.png")}
    main([*words, "--mode", "resize", "--size", "16", "--overwrite", "--shard", "1/2"])
    written = [
        name
        for name in map(str, range(7))
        if whole[out / f"{name}.png"] != (out / f"{name}.png").read_bytes()
    ]
    assert written == ["0", "2", "4", "6"]
    said = refused([*words, "--resume"], 4).splitlines()
    assert all("exists already, by other settings; give another --out" in line for line in said)
    main([*words, "--overwrite"])
    assert whole == {path: path.read_bytes() for path in whole}
    main([*words, "--resume"])


def records_of_whole_lines(folder: Path) -> list[dict[str, Any]]:
    whole = []
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            assert line == '{"done": "6'
    return whole


def dies_before_its_fourth(words: list[str]) -> None:
    torch.set_num_threads(1)
    put, count = many.put_in_place, itertools.count(1)

    def dying(written: dict[Path, Path]) -> None:
        if next(count) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        put(written)

    many.put_in_place = dying
    main(words)


def test_a_killed_job_goes_on(scene_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = f"predict {scene_checkpoint} {photos} --out {out} --device cpu".split()
    killed = PROCESSES.Process(target=dies_before_its_fourth, args=(command,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(out.glob("?.png"))) == 3
    before = {path: path.stat().st_mtime_ns for path in out.glob("?.png")}
    main([*command, "--resume"])
    assert sorted(path.name for path in out.glob("?.png")) == [f"{i}.png" for i in range(7)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    done = [entry["done"] for entry in records(out) if "done" in entry]
    assert sorted(done) == sorted(set(done)) == [str(i) for i in range(7)]
    assert not list(out.glob(".*"))


def test_ctrl_c_leaves_nothing_half_written(
    scene_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(written: dict[Path, Path]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "put_in_place", stop)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        many.segment_files(Predictor(scene_checkpoint), find_pictures([photos]), out, Record(out, {}))
    assert [path.name for path in out.iterdir()] == ["predictions.jsonl"]


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
