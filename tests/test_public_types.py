"""What a type checker says about a user's script: the public names have types, and a wrong one is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SOURCE = Path(__file__).parents[1] / "src"

SETTINGS = """
[mypy]
strict = True
mypy_path = {source}
# of these packages only the names count here: reading them takes most of a minute
[mypy-torch.*,torchvision.*,jsonargparse.*,rich.*,lightning_fabric.*,numba.*,scipy.*,PIL.*,gradio.*,timm.*,yaml.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-atrous.*]
ignore_errors = True
"""

RIGHT = """
import atrous
from atrous.data import train_transform

metrics = atrous.evaluate(atrous.Predictor("best.safetensors"), atrous.open_dataset("scenes", "val"))
score: float = metrics.miou
result: atrous.Segmentation = atrous.Predictor("best.safetensors").predict("photo.jpg")
classes: list[int] = sorted(set(result.labels.ravel().tolist()))
model = atrous.create_model("deeplab_v3", num_classes=21)
atrous.save(model, "copy.safetensors")
loaded = atrous.load("copy.safetensors")
report = atrous.import_checkpoint("deeplab.pth")
crf = atrous.DenseCRF(bi_w=4)
card: str = atrous.hub.card("copy.safetensors")
error = atrous.InputError(atrous.__version__)
"""

WRONG = {
    "atrous.no_such_name": 'Module has no attribute "no_such_name"',
    "atrous.data.no_such_name": 'Module has no attribute "no_such_name"',
    "metrics.miouu": '"Metrics" has no attribute "miouu"',
    "result.labels.tolistt()": 'has no attribute "tolistt"',
    "atrous.DenseCRF(bi_width=4)": 'Unexpected keyword argument "bi_width" for "DenseCRF"',
    'atrous.open_dataset("scenes", 3)': 'Argument 2 to "open_dataset" has incompatible type "int"',
}


def test_a_users_script_is_checked(tmp_path: Path) -> None:
    script, settings = tmp_path / "script.py", tmp_path / "mypy.ini"
    settings.write_text(SETTINGS.format(source=SOURCE))
    script.write_text(RIGHT + "\n".join(WRONG) + "\n")
    options = ["--config-file", settings, "--cache-dir", tmp_path / "cache"]
    command = [sys.executable, "-m", "mypy", *options, script]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    errors = [line for line in told.splitlines() if ": error: " in line]
    assert len(errors) == len(WRONG), told
    for line, (error, what) in enumerate(zip(errors, WRONG.values(), strict=True), RIGHT.count("\n") + 1):
        assert error.startswith(f"{script}:{line}: ") and what in error
