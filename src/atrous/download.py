"""Files from the network: resumed where they broke off, checked by their digest, never left half written."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from atrous.errors import InputError

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
MOST_UNPACKED = 2**32  # bytes of one file in an archive


class NotThere(InputError):  # noqa: N818
    """The server knows no such file."""


def download(
    url: str, path: Path, digest: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Fetch `url` to `path`, unless it is there.

    What came so far stays beside it in NAME.part, and the next try goes on from there. digest: the first digits of the
    file's SHA-256. progress(bytes so far, bytes in all or 0).

    Raises InputError where the network or the file's digest fails; it names the file and where to put it by hand.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    by_hand = f"fetch {url.rsplit('/', 1)[-1]} on another machine and put it at {path}"
    try:
        _fetch(url, part, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        kept = (
            f"; {part.stat().st_size >> 20} MB are kept, the next try goes on there" if part.exists() else ""
        )
        not_there = isinstance(error, urllib.error.HTTPError) and error.code == http.client.NOT_FOUND
        kind = NotThere if not_there else InputError
        raise kind(f"cannot download {url} ({reason}){kept}. Or {by_hand}") from None
    if digest and not _sha256(part).startswith(digest):
        part.unlink()
        raise InputError(
            f"{url}: what came is not the published file (its SHA-256 does not begin {digest}); {by_hand}"
        )
    part.replace(path)
    return path


def unpack(archive: Path, folder: Path, endings: tuple[str, ...]) -> Path:
    """The files of a .tar.gz whose names end so, flat in `folder`, unless it is there; never a half-filled one.

    Raises InputError where the archive is damaged or has no such file; a damaged one has to be downloaded again.
    """
    if folder.is_dir():
        return folder
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if not member.isfile() or not name.endswith(endings) or name.startswith("."):
                    continue
                if member.size > MOST_UNPACKED:
                    raise InputError(f"{archive}: {name} has {member.size} bytes")
                with (beside / name).open("wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type]
        if not any(beside.iterdir()):
            raise InputError(f"{archive}: no file in it ends in {', '.join(endings)}")
        beside.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f"{archive}: not a readable archive ({error}); delete it and pull again") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _fetch(url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        error.close()  # nothing beyond what is there: it is whole, or of another file and the digest will tell
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends the whole file again
        length = int(response.headers.get("Content-Length") or 0)
        total = have + length if length else 0
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
    if total and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
