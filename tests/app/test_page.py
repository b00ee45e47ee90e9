"""The page as its HTTP API, by gradio's client: named endpoints, sessions, refusals."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.cli import main
from atrous.data.scenes import draw_scene

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "app_client.py"


def client(address: str) -> Any:
    from gradio_client import Client

    return Client(address, verbose=False)


def scene(path: Path, index: int) -> Path:
    Image.fromarray(draw_scene(index, size=(64, 96))[0]).save(path)
    return path


def test_the_api_has_two_endpoints_and_no_more(address: str) -> None:
    endpoints = client(address).view_api(return_format="dict")["named_endpoints"]
    assert sorted(endpoints) == ["/refine", "/segment"]
    names = [parameter["parameter_name"] for parameter in endpoints["/refine"]["parameters"]]
    assert names == ["crf", "iter_max", "bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std"]


def test_two_at_once_do_not_mix(address: str, scene_checkpoint: Path, tmp_path: Path) -> None:
    """Two sessions, each with its own pictures and CRF, in turns and at once."""
    from gradio_client import handle_file

    def visit(visitor: int) -> None:
        mine = client(address)
        for index in (visitor, visitor + 10):
            path = scene(tmp_path / f"{visitor}_{index}.png", index)
            mask, *_, summary = mine.predict(handle_file(path), api_name="/segment")
            expected = atrous.Predictor(scene_checkpoint, crf=False, device="cpu").predict(path)
            np.testing.assert_array_equal(np.asarray(Image.open(mask)), expected.labels)
            assert Path(mask).name == f"{visitor}_{index}_mask.png"
            for weight in (visitor + 1.0, 6.0):
                mask, *_, summary = mine.predict(crf=True, bi_w=weight, iter_max=3, api_name="/refine")
                assert summary["crf"]["bi_w"] == weight
                options = {"bi_w": weight, "iter_max": 3}
                refined = atrous.Predictor(scene_checkpoint, crf=options, device="cpu").predict(path)
                assert (np.asarray(Image.open(mask)) == refined.labels).mean() > 0.999

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(visit, visitor) for visitor in (1, 2)]:
            done.result()


def test_refine_before_segment(address: str) -> None:
    with pytest.raises(Exception, match="call segment first"):
        client(address).predict(crf=True, api_name="/refine")


def test_bad_uploads_are_one_line(address: str, tmp_path: Path) -> None:
    from gradio_client import handle_file

    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    Image.new("RGB", (1500, 1000)).save(tmp_path / "many.png")
    (tmp_path / "heavy.bmp").write_bytes(bytes(2_100_000))
    for name, message in (
        ("broken.jpg", "broken.jpg: not a picture"),
        ("many.png", "many.png: too many pixels; pictures up to 1,000,000"),
        ("heavy.bmp", "exceed|413|too large|size"),
    ):
        with pytest.raises(Exception, match=message) as caught:
            client(address).predict(handle_file(tmp_path / name), api_name="/segment")
        assert "Traceback" not in str(caught.value)


def test_the_example(
    address: str,
    tmp_path: Path,
    scene_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = scene(tmp_path / "photo.png", 3)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path), address, str(tmp_path / "out")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out
    labels = atrous.Predictor(scene_checkpoint, device="cpu").predict(path).labels
    largest = int(np.bincount(labels.ravel()).argmax())
    assert f"{100 * (labels == largest).mean():5.1f} %" in shown
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "photo_mask.png")), labels)
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["shapes"]


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match="2"):
            main(["app", "--port", str(port)])
    assert f"127.0.0.1:{port}: Address already in use: give another --port" in capsys.readouterr().err


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match="2"):
        main(["app"])
    assert (
        capsys.readouterr().err.strip() == "atrous: error: the page needs gradio: pip install 'atrous[app]'"
    )


def test_what_was_handed_over_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.app import visit

    first = visit.passing_folder(tmp_path)
    (first / "mask.png").write_bytes(b"x")
    second = visit.passing_folder(tmp_path)
    assert first.exists()
    monkeypatch.setattr(visit, "HANDED_OVER", -1)
    third = visit.passing_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == [third]
    assert not second.exists()


def test_a_page_leaves_nothing_behind(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atrous.app.serving import serve
    from atrous.app.work import Limits, Models

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with serve(Models([str(scene_checkpoint)], "cpu"), Limits(), port=0) as address:
        from gradio_client import Client, handle_file

        caller = Client(address, verbose=False, download_files=str(tmp_path / "mine"))
        mask, *_ = caller.predict(handle_file(scene(tmp_path / "a.png", 3)), api_name="/segment")
        assert Image.open(mask).size == (96, 64)
    assert not [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
