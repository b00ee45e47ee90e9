"""Damaged files: no importer may crash, hang or fill the memory over one.

python tests/importers/fuzz.py FILE [COUNT]     reads COUNT damaged copies; prints what happened as JSON
"""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 10  # one small file takes milliseconds
MEGABYTES = 300  # above what the process has with the whole file


def damage(data: bytes, rng: random.Random) -> bytes:
    """A copy with flipped bits, made-up numbers, a piece cut out or doubled, or its end gone."""
    out = bytearray(data)
    kind = rng.randrange(5)
    at = rng.randrange(len(out))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 4, 32))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        del out[at : at + rng.choice((1, 4, 64, 1024))]
    elif kind == 3:
        out[at:at] = out[at : at + rng.choice((1, 4, 64, 1024))]
    else:
        number = rng.choice((0, 1, 127, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
        out[at : at + 8] = number.to_bytes(8, "little")[: min(8, len(out) - at)]
    return bytes(out)


def fuzz(path: Path, count: int = 500, beside: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read `count` damaged copies of a file in a process of its own.

    beside: files that belong to it, copied as they are (a checkpoint in parts). Returns {"read": files read all the
    same, "refused": files with one clear error, "wrong": [what happened otherwise], "megabytes": growth}.
    """
    words = [sys.executable, "-W", "error", __file__, str(path), str(count), *map(str, beside)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"the reader died ({done.returncode}):\n{done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(path: Path, count: int = 500, beside: tuple[Path, ...] = ()) -> None:
    """Assert that nothing but clear errors and whole files came of it."""
    found = fuzz(path, count, beside)
    assert not found["wrong"], found["wrong"][:5]
    assert found["megabytes"] < MEGABYTES, found
    assert found["refused"] > count // 20, f"hardly a damage was noticed: {found}"


def main(path: Path, count: int, beside: list[Path]) -> None:
    from atrous.errors import InputError
    from atrous.importers import import_checkpoint

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    def attempt(copy: Path) -> str:
        signal.alarm(SECONDS)
        try:
            import_checkpoint(copy)
        except InputError as error:
            return "refused" if "\n" not in str(error).strip() or len(str(error)) < 2000 else "a long error"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
        return "read"

    signal.signal(signal.SIGALRM, too_long)
    rng = random.Random(0)
    data = path.read_bytes()
    outcomes: dict[str, Any] = {"read": 0, "refused": 0, "wrong": []}
    with tempfile.TemporaryDirectory() as folder:
        for other in beside:
            (Path(folder) / other.name).write_bytes(other.read_bytes())
        copy = Path(folder) / path.name
        copy.write_bytes(data)
        attempt(copy)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(count):
            copy.write_bytes(damage(data, rng))
            outcome = attempt(copy)
            if outcome in ("read", "refused"):
                outcomes[outcome] += 1
            else:
                outcomes["wrong"].append(f"copy {i}: {outcome[:300]}")
    outcomes["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [Path(p) for p in sys.argv[3:]])
