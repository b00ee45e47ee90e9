"""Tables of what Google's own code says in TensorFlow (make_tensorflow.py), and ours from the same variables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from seeded import TABLES, difference, draw_picture
from tensorflow_weights import CASES, draw_tensorflow

from atrous.importers import import_checkpoint


def table_difference(name: str, **options: Any) -> float:
    with np.load(TABLES / f"tensorflow_{name}.npz") as file:
        header = json.loads(str(file["header"]))
        logits = {size: torch.from_numpy(file[size]) for size in file.files if size != "header"}
    weights = draw_tensorflow({key: tuple(shape) for key, shape in header["shapes"].items()})
    model = import_checkpoint(weights, source="tensorflow", **CASES[name][2] | options)
    assert not model.report.unused
    found, step = [], header["step"]
    with torch.inference_mode():
        for size, theirs in logits.items():
            ours = model(draw_picture(*map(int, size.split("x"))))
            found.append(difference(ours[..., ::step, ::step], theirs))
    return max(found)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_tensorflows(name: str, prove: Any) -> None:
    variant, settings, _ = CASES[name]
    model = (
        f"{variant}, {'v3+' if 'decoder' in settings else 'v3'}, output stride {settings['output_stride']}"
    )
    width = settings.get("depth_multiplier", 1)
    model += f", width {width}" if width != 1 else ""
    prove("tensorflow", model, table_difference(name), "a table of its own code's logits")


def test_wrong_rates_would_show() -> None:
    assert table_difference("xception_65", atrous_rates=(12, 24, 36)) > 0.01


def test_a_wrong_output_stride_would_show() -> None:
    assert table_difference("mobilenet_v2_os8", output_stride=16) > 0.01
