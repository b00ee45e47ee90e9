from __future__ import annotations

from pathlib import Path

import pytest

from atrous import benchmark
from atrous.benchmark import Timing, recommendation, table
from atrous.cli import main


def timing(runtime: str, precision: str, size: int, *milliseconds: float) -> Timing:
    return Timing(runtime, precision, (size, size), milliseconds, 1e-6)


def test_the_recommendation_follows_the_medians() -> None:
    timings = [
        timing("eager", "fp32", 64, 10, 11, 90),
        timing("eager", "fp32", 128, 40, 40, 40),
        timing("torch", "fp32", 64, 8, 8, 8),
        timing("torch", "fp32", 128, 30, 30, 30),
        timing("openvino", "fp32", 64, 5, 5, 5),
        timing("openvino", "fp32", 128, 20, 20, 20),
    ]
    assert recommendation(timings) == "recommended here: --runtime openvino"
    rows = list(table(timings).columns[4].cells)
    assert rows == ["1.00x", "1.35x", "2.10x"]  # geometric means of 11/8, 40/30 and of 11/5, 40/20
    small_gain = [*timings, timing("torch", "bf16", 64, 5), timing("torch", "bf16", 128, 16)]
    assert recommendation(small_gain) == "recommended here: --runtime openvino"
    large_gain = [*timings, timing("torch", "bf16", 64, 2), timing("torch", "bf16", 128, 8)]
    assert recommendation(large_gain) == (
        "recommended here: --runtime openvino; --runtime torch --precision bf16 is 2.5 times faster, "
        "with scores rounded"
    )


def test_the_command_times_what_needs_no_extra(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(benchmark, "installed", lambda package: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    main(["benchmark", str(scene_checkpoint), "--size", "32", "48", "--rounds", "2", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "32x32, ms" in printed
    assert "recommended here: --runtime " in printed
    assert not list(tmp_path.iterdir())
    timings = benchmark.benchmark(scene_checkpoint, [(32, 32)], __import__("torch").device("cpu"), 1)
    assert [t[:2] for t in timings] == [("eager", "fp32"), ("torch", "fp32"), ("torch", "bf16")]
    far = [t.difference for t in timings]
    assert far[0] == 0
    assert far[1] < 1e-4 < far[2] < 0.1
