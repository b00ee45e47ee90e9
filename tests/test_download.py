"""Downloads against a server that breaks off, lies, or is not there."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atrous.download import NotThere, download, unpack
from atrous.errors import InputError

DATA = bytes(range(256)) * 20_000  # 5 MB
DIGEST = hashlib.sha256(DATA).hexdigest()[:8]


class Server(BaseHTTPRequestHandler):
    """/whole knows no ranges; /ranges does; /breaks sends half of what was asked for; anything else is 404."""

    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/whole" else 0
        body = DATA[start:]
        if self.path not in ("/whole", "/ranges", "/breaks"):
            self.send_error(404)
            return
        if start >= len(DATA):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/breaks" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_fetches_once(server: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(f"{server}/ranges", tmp_path / "a" / "w.pth", DIGEST, lambda *so_far: seen.append(so_far))
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    download(f"{server}/ranges", path, DIGEST)
    assert len(Server.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("kind", ["ranges", "whole"])
def test_goes_on_where_it_broke_off(kind: str, server: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(InputError, match=r"2 MB are kept, the next try goes on there.*put it at .*w\.pth"):
        download(f"{server}/breaks", path, DIGEST)
    assert not path.exists()
    download(f"{server}/{kind}", path, DIGEST)
    assert path.read_bytes() == DATA
    assert Server.asked[-1] == f"bytes={len(DATA) // 2}-"


def test_whole_but_not_yet_renamed(server: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(DATA)
    assert download(f"{server}/ranges", tmp_path / "w.pth", DIGEST).read_bytes() == DATA


def test_another_file_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the published file"):
        download(f"{server}/ranges", tmp_path / "w.pth", "00000000")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url", ["{}/gone.pth", "http://127.0.0.1:9/gone.pth", "http://nowhere.invalid/gone.pth"]
)
def test_no_network_or_no_file(url: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cannot download .*fetch gone\.pth on another machine and put it at"
    ):
        download(url.format(server), tmp_path / "gone.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_told_from_a_network_that_is_not(server: str, tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        download(f"{server}/gone.pth", tmp_path / "gone.pth")
    with pytest.raises(InputError) as failed:
        download("http://127.0.0.1:9/gone.pth", tmp_path / "gone.pth")
    assert not isinstance(failed.value, NotThere)


def packed(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(DATA)
            tar.addfile(info, io.BytesIO(DATA))
        link = tarfile.TarInfo("a/link.index")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def test_an_archive_gives_its_weights_and_nothing_else(tmp_path: Path) -> None:
    names = ("a/model.ckpt.index", "a/._model.ckpt.index", "../../outside.pb", "a/readme.txt")
    archive = packed(tmp_path / "a.tar.gz", *names)
    folder = unpack(archive, tmp_path / "a", (".index", ".pb"))
    assert {p.name: p.read_bytes() == DATA for p in folder.iterdir()} == {
        "model.ckpt.index": True,
        "outside.pb": True,
    }
    archive.unlink()
    assert unpack(archive, tmp_path / "a", (".index",)) == folder  # once


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_archive_leaves_nothing(damage: str, tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", "a/readme.txt" if damage == "other" else "a/model.index")
    if damage != "other":
        archive.write_bytes(archive.read_bytes()[: 0 if damage == "empty" else -40])
    with pytest.raises(InputError, match=r"a\.tar\.gz: (not a readable archive|no file in it ends in)"):
        unpack(archive, tmp_path / "a", (".index",))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]
