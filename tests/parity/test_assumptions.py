"""What weights alone do not tell: the report says what was taken in its place, and an option gives another."""

from __future__ import annotations

from typing import Any

import pytest
from seeded import largest_difference, read_table

from atrous.importers import import_checkpoint

# table of logits -> (what its network has, the same with one thing other)
TABLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "jfzhang95_mobilenet_os8": (
        {"output_stride": 8, "atrous_rates": (12, 24, 36)},
        {"atrous_rates": (6, 12, 18)},
    ),
    "vainf_deeplabv3plus_mobilenet_os8": (
        {"output_stride": 8, "atrous_rates": (12, 24, 36)},
        {"atrous_rates": (6, 12, 18)},
    ),
    "semseg_pspnet50": ({"output_stride": 8, "bins": (1, 2, 3, 6)}, {"bins": (1, 2, 3, 4)}),
    "kazuto1011_v3plus": (
        {"output_stride": 16, "atrous_rates": (6, 12, 18), "multi_grid": (1, 2, 4)},
        {"multi_grid": (1, 1, 1)},
    ),
    "mmseg_deeplabv3_m-v2-d8": (
        {"output_stride": 8, "align_corners": False, "atrous_rates": (12, 24, 36)},
        {"atrous_rates": (6, 12, 18)},
    ),
    "smp_v3plus_mobilenet_8": (
        {"output_stride": 8, "atrous_rates": (12, 24, 36)},
        {"atrous_rates": (6, 12, 18)},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_not_given_is_told(name: str) -> None:
    weights, pairs, step = read_table(name)
    right, other = TABLES[name]
    model: Any = import_checkpoint(weights, **right)
    assert model.report.notes == []
    assert largest_difference(model, pairs[:1], step) <= 1e-4
    assert largest_difference(import_checkpoint(weights, **right | other), pairs[:1], step) > 0.01
    stride = right.pop("output_stride")
    values = [f"{k} {' '.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in right.items()]
    given: Any = import_checkpoint(weights, output_stride=stride)
    assert given.report.notes == [f"{', '.join(values)}: the project's own, the file does not say"]
    alone: Any = import_checkpoint(weights)
    assert alone.report.notes[0].startswith(f"output_stride {alone.config.output_stride}, ")
