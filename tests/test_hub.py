"""Checkpoints in a folder and on the hub: a local server speaks the few routes of the hub that are needed."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import atrous
from atrous import hub
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.data import SCENES
from atrous.errors import InputError
from atrous.importers.initialise import initialise
from atrous.models import build_model
from atrous.report.source import is_source, open_source

huggingface_hub = pytest.importorskip("huggingface_hub")
REVISION = "0" * 39 + "1"
TOKEN = "hf_a_token_of_this_test"


class Hub(BaseHTTPRequestHandler):
    """me/cats is public, me/secret is private, me/empty has no file; whatever is committed lands in `files`."""

    files: dict[str, dict[str, bytes]] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        Hub.asked.append(f"{self.command} {self.path}")
        owner, name, kind, revision, file = [*self.path.strip("/").split("/"), *[""] * 5][:5]
        repository = f"{owner}/{name}"
        known = repository in Hub.files and (
            name != "secret" or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        )
        if kind != "resolve" or not known:
            self.answer(401, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", REVISION):
            self.answer(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        elif file not in Hub.files[repository]:
            self.answer(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION})
        else:
            data = Hub.files[repository][file]
            etag = hashlib.sha256(data).hexdigest()
            self.answer(200, data, {"X-Repo-Commit": REVISION, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Hub.asked.append(f"{self.command} {self.path}")
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif not allowed:
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            Hub.files.setdefault(name, {})
            self.answer(200, {"url": f"{self.where()}/{name}"})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif self.path.endswith("/commit/main"):
            name = "/".join(self.path.split("/")[3:5])
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    Hub.files[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer(
                200,
                {"success": True, "commitOid": REVISION, "commitUrl": f"{self.where()}/{name}/commit/1"},
            )
        else:
            self.answer(404, {"error": self.path})

    def where(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(
        self, status: int, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there, and huggingface_hub does not wait between its tries."""
    point_at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub of our own, and a cache and log-in that are nobody's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(Hub, "files", {"me/empty": {}, "me/secret": {}})
    monkeypatch.setattr(Hub, "asked", [])
    constants = huggingface_hub.constants
    point_at(address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(scene_checkpoint: Path) -> Any:
    model: Any = atrous.load(scene_checkpoint)
    scores = {
        "miou": 0.61239,
        "pixel_accuracy": 0.9,
        "per_class_iou": {"sky": 0.75, "car": None},
        "pictures": 7,
    }
    recipe = {
        "data": "/home/somebody/secret/scenes",
        "out": "/home/somebody/runs",
        "iterations": 3,
        "data_options": {"images": r"C:\somebody\cats"},
    }
    model.metadata = Metadata(SCENES, scores=scores, recipe=recipe)
    return model


def test_a_folder_and_back(model: Any, tmp_path: Path) -> None:
    hub.save_pretrained(model, tmp_path / "cats")
    back = hub.from_pretrained(tmp_path / "cats")
    x = torch.rand(1, 3, 33, 47)
    assert torch.equal(back(x), model(x))
    found: Any = back.metadata
    assert found.recipe == {
        "data": "scenes",
        "out": "runs",
        "iterations": 3,
        "data_options": {"images": "cats"},
    }
    found.recipe = model.metadata.recipe
    assert found == model.metadata
    for path in (tmp_path / "cats").iterdir():
        assert b"somebody" not in path.read_bytes(), path.name  # no folder of the machine that trained it
    said = json.loads((tmp_path / "cats" / "config.json").read_text())
    assert said["model"]["backbone"] == "mobilenet_v2"
    with pytest.raises(InputError, match=r"model\.safetensors: exists already"):
        hub.save_pretrained(model, tmp_path / "cats")
    hub.save_pretrained(model, tmp_path / "cats", overwrite=True)


def test_the_folder_stands_where_a_checkpoint_is_asked_for(
    model: Any, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cats"
    hub.save_pretrained(model, folder)
    for name, weight in atrous.load(folder).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    main(["predict", str(folder), str(photo), "--out", str(tmp_path / "out")])
    labels = np.array(Image.open(tmp_path / "out" / "photo.png"))
    np.testing.assert_array_equal(labels, atrous.Predictor(folder, runtime="torch").predict(photo).labels)
    main(["info", str(folder)])
    assert "mobilenet_v2" in capsys.readouterr().out
    assert is_source(str(folder))
    assert open_source(str(folder)).checkpoint == str(folder / "model.safetensors")
    taken = initialise(build_model(model.config), folder, lambda: torch.zeros(0))
    assert (taken.source, taken.normalization) == ("atrous", model.metadata.normalization)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_the_card_is_read_by_the_hub_s_own_reader(model: Any, tmp_path: Path) -> None:
    hub.save_pretrained(model, tmp_path / "cats", name="me/cats", license="mit")
    found = huggingface_hub.ModelCard.load(tmp_path / "cats" / "README.md")
    data = found.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("atrous", "image-segmentation", "mit")
    assert {"deeplab_v3plus", "mobilenet_v2", "semantic-segmentation"} <= set(data.tags)
    figures = {result.metric_type: result.metric_value for result in data.eval_results}
    assert figures == {"miou": 0.6124, "pixel_accuracy": 0.9}
    assert {result.dataset_name for result in data.eval_results} == {"scenes"}
    assert 'atrous.Predictor("hub:me/cats")' in found.text
    assert "| sky | 0.750 |" in found.text
    assert "| car | absent |" in found.text


def test_a_card_without_scores_or_licence() -> None:
    model = atrous.create_model("deeplab_v1", "mobilenet_v2", num_classes=2)
    front = yaml.safe_load(hub.card(model).split("---")[1])
    assert "model-index" not in front
    assert "license" not in front
    assert "class_0, class_1" in hub.card(model)


@pytest.fixture
def published(endpoint: str, model: Any) -> str:
    """me/cats, pushed as a user does it."""
    address = hub.push_to_hub(model, "me/cats", token=TOKEN)
    assert address == f"{endpoint}/me/cats/commit/1"
    return "hub:me/cats"


def test_there_and_back(published: str, model: Any) -> None:
    assert sorted(Hub.files["me/cats"]) == ["README.md", "config.json", "model.safetensors"]
    back = hub.from_pretrained("me/cats")
    x = torch.rand(1, 3, 20, 31)
    assert torch.equal(back(x), model(x))
    assert torch.equal(hub.from_pretrained("me/cats", revision="main")(x), model(x))
    assert torch.equal(atrous.load(f"{published}@main")(x), model(x))


def test_the_command_line_predicts_with_it(
    published: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["predict", published, str(photo), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "photo.png").is_file()
    main(["info", published])
    assert "mobilenet_v2" in capsys.readouterr().out


def test_what_is_written_of_it_lies_here(
    published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores, and the search of the CRF's parameters, which goes into another file than the hub's cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main(["evaluate", f"{published}@main", "scenes", "--limit", "1"])
    assert json.loads(Path("cats_val.json").read_text())["pictures"] == 1
    with pytest.raises(SystemExit):
        main(["crf", "search", published, "scenes"])
    assert f"{published}: is not written into; say with --out" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["cats_val.json"]


def test_the_cache_serves_without_a_network(
    published: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    atrous.load(published)
    no_network(monkeypatch)
    x = torch.rand(1, 3, 20, 31)
    assert torch.equal(atrous.load(published)(x), model(x))
    with pytest.raises(InputError, match="hub:me/dogs: not in the cache, and the hub cannot be reached"):
        atrous.load("hub:me/dogs")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:me/gone", "no such repository, or one that is private: log in"),
        ("hub:me/secret", "no such repository, or one that is private: log in"),
        ("hub:me/empty", "no model.safetensors there; of another project: atrous pull huggingface/me/empty"),
        ("hub:me/cats@old", "no such revision"),
        ("hub:me/a/b", "not a name of the hub, which are OWNER/NAME"),
    ],
)
def test_one_line_says_what_is_wrong(
    published: str, name: str, message: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", name, str(photo)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.strip().splitlines()) == 1
    assert error.startswith(f"atrous: error: {name.split('@')[0]}")
    assert message in error
    assert not Path("predictions").exists()


def test_a_private_one_opens_with_its_token(endpoint: str, model: Any, tmp_path: Path) -> None:
    hub.save_pretrained(model, tmp_path / "m")
    Hub.files["me/secret"] = {"model.safetensors": (tmp_path / "m" / "model.safetensors").read_bytes()}
    x = torch.rand(1, 3, 20, 31)
    assert torch.equal(hub.from_pretrained("me/secret", token=TOKEN)(x), model(x))


def test_pushing_without_a_log_in(endpoint: str, model: Any) -> None:
    with pytest.raises(InputError, match=r"hub:me/cats: (your token may not write|you are not logged in)"):
        hub.push_to_hub(model, "me/cats")


def test_pushing_without_a_network(endpoint: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    with pytest.raises(InputError, match="hub:me/cats: the hub cannot be reached"):
        hub.push_to_hub(model, "me/cats", token=TOKEN)


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"hub:me/cats needs huggingface_hub: pip install 'atrous\[hub\]'"):
        atrous.load("hub:me/cats")
