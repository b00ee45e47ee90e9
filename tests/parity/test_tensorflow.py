"""Tables of what Google's own code says in TensorFlow (make_tensorflow.py), and ours from the same variables."""

from __future__ import annotations

from typing import Any

import pytest
from seeded import largest_difference, read_table
from tensorflow_weights import CASES, draw_tensorflow

from atrous.importers import import_checkpoint


def table_difference(name: str, **options: Any) -> float:
    weights, pairs, step = read_table(f"tensorflow_{name}", draw_tensorflow)
    model = import_checkpoint(weights, source="tensorflow", **CASES[name][2] | options)
    assert not model.report.unused
    return largest_difference(model, pairs, step)


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
