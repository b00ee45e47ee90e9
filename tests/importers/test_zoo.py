"""`zoo.pull` against a local server that holds a folder of files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atrous.errors import InputError
from atrous.importers import openmmlab, zoo

DATA = b"weights" * 1000
CONFIG = "pspnet_r50-d8_512x512_20k_voc12aug"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server shows, where all addresses of the zoo lead to; downloads go to tmp_path / "hub"."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{http.server_port}"
        monkeypatch.setattr(zoo, "TENSORFLOW", here + "/{}.tar.gz")
        monkeypatch.setattr(zoo, "PADDLE", here + "/{}/{}/model.pdparams")
        monkeypatch.setattr(zoo, "HUB", here + "/{}/resolve/main/{}")
        monkeypatch.setattr(openmmlab, "FILES", here + "/{folder}/{config}/{config}_{stamp}.pth")
        yield folder
        http.shutdown()


def put(file: Path, data: bytes = DATA) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@pytest.mark.parametrize("right", [True, False])
def test_mmsegs_digits_are_checked(right: bool, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = hashlib.sha256(DATA).hexdigest()[:8] if right else "0" * 8
    monkeypatch.setitem(openmmlab.MODELS, CONFIG, f"20200617_101958-{digits}")
    put(served / "pspnet" / CONFIG / f"{CONFIG}_20200617_101958-{digits}.pth")
    if right:
        assert zoo.pull(f"mmseg/{CONFIG}").read_bytes() == DATA
        return
    with pytest.raises(InputError, match="is not the published file"):
        zoo.pull(f"mmseg/{CONFIG}")


def test_mmsegs_names_end_in_date_and_digits() -> None:
    assert len(openmmlab.MODELS) > 90
    assert all(re.fullmatch(r"20\d{6}_\d{6}-[0-9a-f]{8}", stamp) for stamp in openmmlab.MODELS.values())
    mobile = "deeplabv3plus_m-v2-d8_512x512_160k_ade20k"
    assert openmmlab.address(mobile).endswith(f"/mobilenet_v2/{mobile}/{mobile}_20200825_223255-465a01d4.pth")


def test_a_tensorflow_archive_becomes_a_folder(served: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (
            "model.ckpt.index",
            "model.ckpt.data-00000-of-00001",
            "frozen_inference_graph.pb",
            "log",
        ):
            info = tarfile.TarInfo(f"deeplab/{name}")
            info.size = len(DATA)
            tar.addfile(info, io.BytesIO(DATA))
    put(served / "xception_71_2018_05_09.tar.gz", packed.getvalue())
    folder = zoo.pull("tensorflow/xception_71")
    found = sorted(p.name for p in folder.iterdir())
    assert found == ["frozen_inference_graph.pb", "model.ckpt.data-00000-of-00001", "model.ckpt.index"]


def test_a_repository_of_the_hub(served: Path) -> None:
    where = served / "somebody" / "model" / "resolve" / "main"
    put(where / "config.json", json.dumps({"a": 1}).encode())
    with pytest.raises(InputError, match=r"no model\.safetensors and no pytorch_model\.bin there"):
        zoo.pull("huggingface/somebody/model")
    put(where / "pytorch_model.bin")
    folder = zoo.pull("huggingface/somebody/model")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
    with pytest.raises(
        InputError, match=r"fetch config\.json on another machine and put it at .*nobody--model"
    ):
        zoo.pull("huggingface/nobody/model")


def test_paddles_files_get_names_of_their_own(served: Path) -> None:
    name = "deeplabv3p_resnet101_os8_voc12aug_512x512_40k"
    put(served / "pascal_voc12" / name / "model.pdparams")
    assert zoo.pull(f"paddle/{name}").name == f"{name}.pdparams"


@pytest.mark.parametrize("name", ["huggingface/../x", "huggingface/x", "mmseg/fcn", "nowhere/x"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(InputError, match="unknown checkpoint"):
        zoo.pull(name)
