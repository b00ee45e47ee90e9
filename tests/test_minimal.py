"""The package with its mandatory dependencies alone, and the wheel.

Everything that these dependencies do not bring is made un-importable. That is decided from the metadata of what is
installed, so a new optional package is blocked as soon as it is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.errors import InputError
from atrous.raster.base import needed

ROOT = Path(__file__).parents[1]
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
ALLOWED = {"pip", "setuptools", "_distutils_hack", "pkg_resources"}  # every environment has them
TOLD = {  # a command that needs an extra -> the extra that its one line names
    "info deeplab_v3plus --backbone timm:resnet18": "timm",
    "predict film.mp4": "video",
    "predict hub:me/cats photo.jpg": "hub",
    "predict picture.tif --large --longer_side 0": "large",
    "predict model.onnx photo.jpg": "export",
    "predict model.xml photo.jpg": "export",
    "predict box photo.jpg --runtime onnxruntime --out again": "export",
    "predict box photo.jpg --runtime openvino --out again": "export",
    "export box --format onnx": "export",
    "export box --format openvino": "export",
    "export box --format onnx --int8 scenes": "export",
}

SCRIPT = """
import contextlib, io, json, sys

class Without:
    # finds what the usual finder finds, but for some names
    def __init__(self, finder, names):
        self.finder, self.names = finder, set(names)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

blocked, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.meta_path[:] = [Without(finder, blocked) if hasattr(finder, "find_spec") else finder for finder in sys.meta_path]
import atrous
from atrous.cli import main
import torch
torch.set_num_threads(1)
answers = []
for command in commands:
    out, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(command.split())
        except SystemExit as stop:
            code = stop.code or 0
    answers.append([code, out.getvalue(), error.getvalue()])
print(json.dumps({"where": atrous.__file__, "loaded": sorted({n.partition(".")[0] for n in sys.modules}),
                  "answers": answers}))
"""


def mandatory(name: str = "atrous") -> set[str]:
    """The distributions that `name` needs, and theirs; extras only where a requirement names them."""
    found: set[str] = set()
    waiting = [(name, frozenset[str]())]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(plain(name))
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in needed:
            wanted, _, marker = line.partition(";")
            named = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
            if named and named[1] not in extras:
                continue
            match = re.match(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\])?", wanted)
            assert match, line
            more = frozenset(each.strip() for each in (match[2] or "").split(",") if each.strip())
            waiting.append((match[1], more))
    return found


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def optional_modules() -> list[str]:
    """Top-level modules of what is installed beyond the mandatory."""
    kept = mandatory() | ALLOWED
    return sorted(
        module
        for module, distributions in packages_distributions().items()
        if not any(plain(each) in kept for each in distributions) and module not in ALLOWED
    )


def run(python: str | Path, commands: list[str], folder: Path) -> dict[str, Any]:
    words = [str(python), "-W", "ignore", "-c", SCRIPT, json.dumps(optional_modules()), json.dumps(commands)]
    environment = None if python == sys.executable else ALONE
    result = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def drawn(folder: Path) -> None:
    """A photo with a smooth gradient, and files whose endings are all that is looked at before the extra is."""
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=2).astype(np.uint8)
    for name in ("photo.jpg", "picture.tif"):
        Image.fromarray(pixels).save(folder / name)
    for name in ("film.mp4", "model.onnx", "model.xml"):
        (folder / name).write_bytes(b"nothing")


def test_the_blocker_blocks_what_the_extras_bring() -> None:
    blocked = set(optional_modules())
    assert {
        "timm",
        "numba",
        "av",
        "onnx",
        "onnxruntime",
        "openvino",
        "nncf",
        "tifffile",
        "imagecodecs",
    } <= blocked
    assert not blocked & {
        "torch",
        "torchvision",
        "numpy",
        "PIL",
        "yaml",
        "rich",
        "jsonargparse",
        "safetensors",
    }


def test_everything_but_the_extras_works_without_them(tmp_path: Path) -> None:
    """Each verb's help; predict, with the CRF; train, evaluate, info; and one line for whatever needs an extra."""
    from atrous.cli import VERBS

    drawn(tmp_path)
    small = "--crop_size 32 --batch_size 2 --workers 0 --data_options.length 4 --device cpu --max_val 1"
    working = [
        *(f"{verb} --help" for verb in VERBS),
        "predict photo.jpg --out plain --probabilities",
        "predict photo.jpg --out refined --crf",
        f"train scenes --recipe scenes --iterations 2 --out run {small}",
        "evaluate run/best.safetensors scenes --limit 1",
        "info run/best.safetensors",
        "export box --format torch --out model.pt2",
    ]
    answer = run(sys.executable, [*working, *TOLD], tmp_path)
    assert not set(optional_modules()) & set(answer["loaded"])

    for command, (code, _, error) in zip(working, answer["answers"], strict=False):
        assert code == 0, f"{command}: {error}"
    with Image.open(tmp_path / "plain" / "photo.png") as labels:
        assert labels.size == (64, 48)
    probabilities = np.load(tmp_path / "plain" / "photo_probabilities.npy")
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert "mIoU" in answer["answers"][len(working) - 3][1]

    for (command, extra), (code, out, error) in zip(
        TOLD.items(), answer["answers"][len(working) :], strict=True
    ):
        assert code == 2, f"{command}: {out}"
        assert f"pip install 'atrous[{extra}]'" in error, f"{command}: {error}"
        assert len(error.splitlines()) == 1


def test_what_reads_the_largest_pictures_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(InputError, match=r"need pyvips.*pip install 'atrous\[vips\]'"):
        needed("pyvips", "JPEG")


def test_every_extra_is_part_of_all() -> None:
    """`pip install 'atrous[all]'` brings what any command can ask for."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    (everything,) = extras["all"]
    named = re.findall(r"\w+", everything.removeprefix("atrous"))
    assert sorted(named) == sorted(extras.keys() - {"all", "dev", "docs"})
    assert set(TOLD.values()) <= set(named)


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    """Built, installed where only the mandatory dependencies can be imported, and used; torch's own files are lent."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
    ]
    shutil.copytree(ROOT / "src", tmp_path / "tree" / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "tree" / "recipes")
    subprocess.run([*build, str(tmp_path / "tree")], check=True, env=ALONE)
    (wheel,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        metadata = files.read(next(n for n in names if n.endswith("METADATA"))).decode()
    recipes = {path.name for path in (ROOT / "recipes").glob("*.yaml")}
    assert {Path(name).name for name in names if name.startswith("atrous/recipes/")} == recipes
    assert {"atrous/py.typed", "atrous/box/model.safetensors", "atrous/box/CARD.md"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs", "examples"))]
    assert "Project-URL" not in metadata
    assert "License-Expression: Apache-2.0" in metadata

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, env=ALONE
    )
    lent = Path(np.__file__).parents[1]
    (site / "lent.pth").write_text(f"{lent}\n")
    drawn(tmp_path)
    small = "--crop_size 32 --batch_size 2 --workers 0 --data_options.length 4 --device cpu --max_val 1"
    answer = run(
        python,
        [
            "predict photo.jpg",
            f"train scenes --recipe scenes --iterations 2 --out run {small}",
            "evaluate run/best.safetensors scenes --limit 1",
            "info run/best.safetensors",
        ],
        tmp_path,
    )
    assert Path(answer["where"]).is_relative_to(site)
    assert [code for code, _, _ in answer["answers"]] == [0, 0, 0, 0], answer["answers"]
    assert (tmp_path / "predictions" / "photo_overlay.png").is_file()
    subprocess.run([tmp_path / "env" / "bin" / "atrous", "--version"], check=True, env=ALONE)
    check = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, env=ALONE)
    assert not [line for line in check.stdout.splitlines() if line.startswith("atrous ")]
