"""Files from the network: resumed where they broke off, checked by their digest, never left half written."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from atrous.errors import InputError

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte


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
        raise InputError(f"cannot download {url} ({reason}){kept}. Or {by_hand}") from None
    if digest and not _sha256(part).startswith(digest):
        part.unlink()
        raise InputError(
            f"{url}: what came is not the published file (its SHA-256 does not begin {digest}); {by_hand}"
        )
    part.replace(path)
    return path


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
