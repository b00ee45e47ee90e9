"""Who may import whom: downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "atrous"

# from the ground up; a room may import from the floors below its own
ROOMS = [
    "version errors allocator cache replacing kernels.openmp kernels.region kernels.jit kernels.simd",
    "layers data.labels config metrics schedule hints crf",
    "colours losses tiling download repository protocols processes boundary record stream batch_norm fake_quantize "
    "kernel_sums kernels.compiled_loop kernels.upsampling_kernels kernels.winograd_kernels "
    "kernels.atrous_depthwise_kernels kernels.depthwise kernels.dilated kernels.strided training.ema training.launch",
    "backbones data lettering kernels kernels.upsampling kernels.winograd kernels.atrous_depthwise "
    "kernels.quick_gradients",
    "visualize score_maps kernels.quick_inference",
    "finding models training.batches raster polygons heat_map",
    "checkpoint info pre_annotations",
    "importers runtimes hub receptive",
    "predict training.objective training.network",
    "evaluation results large_job training.bounds",
    "segment_files video tuning quantize benchmark report training.run",
    "large training training.optimizer training.state",
    "train",
    "terminal app",
    "verbs",
    "cli",
    "__main__ __init__",
]
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
SIBLINGS = {("models.deeplab_v3plus", "models.deeplab_v3")}  # the only model that is built on another


def room(module: str) -> str:
    """The longest leading part of a module's name that has a floor."""
    parts = module.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOORS), parts[0])


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, without the leading `atrous.`; functions' own imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "atrous":
            inside = node.module.removeprefix("atrous").removeprefix(".")
            found |= {f"{inside}.{alias.name}".strip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("atrous.") for a in node.names if a.name.startswith("atrous.")}
    return {name for name in found if (SOURCE / name.split(".")[0]).exists() or room(name) in FLOORS}


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    assert room(module) in FLOORS, f"{module} has no floor: give it one in ROOMS"
    for imported in imports(path):
        here, there = room(module), room(imported)
        assert there in FLOORS, f"{module} imports {imported}, which has no floor"
        if here == there == "models" and not module.endswith("__init__"):
            assert any(module == a and imported.startswith(b) for a, b in SIBLINGS), (
                f"{module} imports {imported}"
            )
        elif here != there:
            assert FLOORS[there] < FLOORS[here], f"{module} must not import {imported}: it is not below"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    """The checker sees a forbidden import, in a function too."""
    source = "def f():\n    from atrous.train import train\n    import atrous.cli\n"
    path = tmp_path / "forbidden.py"
    path.write_text(source)
    assert {room(name) for name in imports(path)} == {"train", "cli"}
