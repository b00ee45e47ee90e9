"""Exported files beside the model: every kind of layer, in every runtime that is installed."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import atrous
from atrous import create_model
from atrous.checkpoint import Metadata
from atrous.cli import main
from atrous.config import Protocol
from atrous.data import SCENES
from atrous.errors import InputError
from atrous.layers import _averaging
from atrous.predict import Predictor
from atrous.runtimes import load
from atrous.runtimes.export import FORMATS, Parity, export
from atrous.runtimes.networks import OpenVinoNetwork

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "v1 msc": ("deeplab_v1", {"backbone": "resnet18", "msc": True}),
    "v2 msc, align_corners": ("deeplab_v2", {"backbone": "resnet18", "msc": True, "align_corners": True}),
    "pspnet": ("pspnet", {"backbone": "resnet18"}),
    "v3, ceil mode": ("deeplab_v3", {"backbone": "resnet18", "ceil_mode": True}),
    "v3 msc": ("deeplab_v3", {"backbone": "resnet18", "msc": True}),
    "v3+ separable": ("deeplab_v3plus", {"backbone": "resnet18", "separable": True}),
    "v3+, TensorFlow's padding": (
        "deeplab_v3plus",
        {"backbone": "mobilenet_v2", "width": 0.35, "padding": "same", "align_corners": "asymmetric"},
    ),
}
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "v1 on VGG": ("deeplab_v1", {"backbone": "vgg16"}),
    "v2 on VGG": ("deeplab_v2", {"backbone": "vgg16"}),
    "v3 cascade": ("deeplab_v3", {"backbone": "resnet18", "form": "cascade"}),
    "v3 on MobileNetV3": ("deeplab_v3", {"backbone": "mobilenet_v3_large"}),
    "v3+ on Xception": ("deeplab_v3plus", {"backbone": "xception41", "separable": True}),
    "v3+ on EdgeTPU": ("deeplab_v3plus", {"backbone": "mobilenet_edgetpu", "padding": "same"}),
    "v3 on DRN": ("deeplab_v3", {"backbone": "drn_d_22", "output_stride": 8}),
    "Google's ResNet": (
        "deeplab_v3",
        {"backbone": "resnet18", "stride_at": "last", "dilate_from": "next", "pool_padding": "same"},
    ),
    "average shortcut": ("deeplab_v3", {"backbone": "resnet18", "average_shortcut": True, "deep_stem": True}),
}


def lively(model: nn.Module) -> nn.Module:
    """Logits that differ from pixel to pixel by about 1, around 0, so that no class wins everywhere."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.2, 1)
    x = torch.randn(1, 3, 65, 65)
    last = [m for key, m in model.named_modules() if isinstance(m, nn.Conv2d) and "aux" not in key][-1]
    with torch.no_grad():
        logits = model.eval()(x)
        mean = logits.mean((0, 2, 3))
        size = (logits - mean.view(1, -1, 1, 1)).std()
        last.weight.div_(size)
        last.bias.sub_(mean).div_(size)
    return model


def beside(model: nn.Module, network: nn.Module, shape: tuple[int, ...]) -> float:
    x = torch.randn(shape)
    with torch.no_grad():
        return float((network(x) - model(x)).abs().max())


@pytest.mark.parametrize("which", [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_model_in_onnx_runtime_and_openvino(which: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    name, options = (MODELS | SLOW)[which]
    model = lively(create_model(name, num_classes=5, **options))
    parity = export(model, tmp_path / "m.onnx", "onnx")
    assert parity.difference < 1e-3
    networks = [load(tmp_path / "m.onnx")]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    with contextlib.suppress(ModuleNotFoundError):
        networks.append(OpenVinoNetwork(tmp_path / "m.onnx"))
        assert export(model, tmp_path / "m.xml", "openvino").difference < 1e-3
        networks.append(load(tmp_path / "m.xml"))
    for network in networks:
        for shape in ((1, 3, 48, 80), (3, 3, 51, 33)):
            assert beside(model, network, shape) < 1e-3


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 6), (7, 13), (1, 4), (60, 60)])
def test_averaging_is_adaptive_pooling(bins: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    rows, columns = (_averaging(side, bins, x) for side in size)
    torch.testing.assert_close(rows @ x @ columns.T, F.adaptive_avg_pool2d(x, bins))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = lively(create_model("deeplab_v3", backbone="resnet18", num_classes=9))
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    atrous.save(model, path, Metadata(SCENES, scores={"miou": 0.5}))
    return path


@pytest.fixture(scope="module")
def program(small: Path) -> Path:
    """The file that torch alone can write."""
    path = small.with_suffix(".pt2")
    main(["export", str(small), "--format", "torch", "--out", str(path)])
    return path


@pytest.fixture(scope="module")
def loaded(program: Path) -> nn.Module:
    return load(program)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "protocol", [{}, {"scales": (0.5, 1.0), "flip": True}, {"mode": "slide", "size": (33, 41)}]
)
def test_a_predictor_of_the_program_follows_the_protocols(
    small: Path, loaded: nn.Module, protocol: dict[str, Any]
) -> None:
    for size in ((64, 80), (19, 23)):
        ours = Predictor(small, runtime="torch", **protocol).predict(picture(*size), probabilities=True)
        theirs = Predictor(loaded, **protocol).predict(picture(*size), probabilities=True)
        np.testing.assert_allclose(theirs.probabilities, ours.probabilities, atol=1e-4)
        assert (theirs.names, theirs.palette) == (ours.names, ours.palette)


def test_a_program_takes_pictures_of_any_size(tmp_path: Path) -> None:
    """Also below the size of the pyramid's finest grid, which torch.export takes for a bound."""
    model = lively(create_model("pspnet", backbone="resnet18", num_classes=5))
    export(model, tmp_path / "m.pt2", "torch")
    network = load(tmp_path / "m.pt2")
    for shape in ((1, 3, 8, 8), (2, 3, 5, 33), (1, 3, 1, 1), (1, 3, 64, 3)):
        assert beside(model, network, shape) < 1e-3


def test_the_output_stride_is_the_protocols(small: Path, tmp_path: Path) -> None:
    model = atrous.load(small)
    model.metadata.protocol = Protocol(output_stride=8)  # type: ignore[union-attr]
    for output in ("logits", "labels"):
        export(model, tmp_path / "m.pt2", "torch", output)
        network = load(tmp_path / "m.pt2")
        assert network.config.output_stride == 8
        ours = Predictor(small, output_stride=8, runtime="eager").predict(picture(40, 56))
        theirs = Predictor(network).predict(picture(40, 56))
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_a_few_pictures_on_a_cpu_run_folded_with_the_same_logits(small: Path) -> None:
    model, predictor = atrous.load(small), Predictor(small, pictures=1)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in predictor.model.modules())
    assert beside(model, predictor.model, (1, 3, 65, 49)) < 1e-4
    assert Predictor(model, runtime="eager").model is model
    full, half = (
        Predictor(small, precision=precision, runtime="torch").predict(picture(64, 64), probabilities=True)
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(half.probabilities - full.probabilities).max() < 0.1


def test_the_file_says_all_about_itself(small: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    main(["export", str(small), "--format", "onnx", "--out", str(path)])
    content = onnx.load(path)
    onnx.checker.check_model(content)
    said = {entry.key: json.loads(entry.value) for entry in content.metadata_props}
    assert said["class_names"] == list(SCENES.names)
    assert said["atrous"]["model"]["backbone"] == "resnet18"
    assert said["atrous"]["protocol"]["mode"] == "direct"
    assert said["atrous"]["scores"] == {"miou": 0.5}
    assert said["atrous"]["graph"]["opset"] == content.opset_import[0].version
    assert said["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    dims = [d.dim_param or d.dim_value for d in content.graph.input[0].type.tensor_type.shape.dim]
    assert dims == said["input"]["shape"] == ["N", 3, "H", "W"]


@pytest.mark.parametrize("format", FORMATS)
def test_labels_from_the_graph_are_the_predictors(small: Path, tmp_path: Path, format: str) -> None:
    for package in FORMATS[format].packages:
        pytest.importorskip(package)
    path = tmp_path / f"m{FORMATS[format].suffix}"
    model = atrous.load(small)
    model.metadata.protocol = Protocol(flip=True)  # type: ignore[union-attr]
    atrous.save(model, tmp_path / "flipping.safetensors")
    source = str(tmp_path / "flipping.safetensors")
    main(["export", source, "--format", format, "--labels", "--out", str(path)])
    expected = Predictor(small, runtime="torch")
    for size in ((48, 64), (35, 21)):
        found = Predictor(path).predict(picture(*size)).labels
        wanted = expected.predict(picture(*size), probabilities=True)
        assert found.dtype == np.uint8
        assert len(np.unique(found)) > 1
        other = found != wanted.labels
        best, second = np.sort(wanted.probabilities, 0)[[-1, -2]]
        assert (best - second)[other].max(initial=0) < 1e-4
    assert Predictor(path).protocol == Protocol()
    with pytest.raises(InputError, match="gives labels, not scores"):
        Predictor(path, flip=True).predict(picture(32, 32))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_conversion_is_kept_by_weights_and_output_stride(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for stride in (16, 8):
        expected = Predictor(small, runtime="torch", output_stride=stride)
        converted = Predictor(small, runtime=runtime, output_stride=stride)
        kind = {"onnxruntime": "OnnxNetwork", "openvino": "OpenVinoNetwork"}[runtime]
        assert type(converted.model).__name__ == kind
        found, wanted = (it.predict(picture(50, 70), probabilities=True) for it in (converted, expected))
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "atrous").iterdir()}
    assert len([path for path in made if path.suffix in (".onnx", ".xml")]) == 2
    Predictor(small, runtime=runtime)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "atrous").iterdir()} == made


def test_the_way_over_onnx_where_a_trace_is_of_one_size(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose file is not the model is followed by the next; with none left, no file stays."""
    import atrous.runtimes.export as room

    written = []

    def wrong(graph: nn.Module, *rest: Any) -> None:
        written.append("wrong")
        shifted = copy.deepcopy(graph)
        next(m for m in shifted.modules() if isinstance(m, nn.Conv2d)).weight.data.mul_(1.01)
        room._write_torch(shifted, *rest)

    def right(*given: Any) -> None:
        written.append("right")
        room._write_torch(*given)

    for ways in ((wrong, right), (right, wrong)):
        monkeypatch.setitem(FORMATS, "torch", FORMATS["torch"]._replace(ways=ways))
        assert export(atrous.load(small), tmp_path / "m.pt2", "torch").difference < 1e-3
    assert written == ["wrong", "right", "right"]


def test_a_file_without_parity_is_not_left(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import atrous.runtimes.export as room

    fold = room.fold_batch_norm

    def wrong(model: nn.Module) -> nn.Module:
        folded = fold(model)
        next(m for m in folded.modules() if isinstance(m, nn.Conv2d)).weight.data.mul_(1.01)
        return folded

    monkeypatch.setattr(room, "fold_batch_norm", wrong)
    with pytest.raises(InputError, match=r"m\.pt2: not written, its logits are not the model's"):
        export(atrous.load(small), tmp_path / "m.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_bad_files_and_names(
    small: Path,
    program: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:
    capsys.readouterr()
    assert "exists already" in refused(["export", str(small), "--format", "torch", "--out", str(program)])
    assert "ends in .pt2" in refused(["export", str(small), "--format", "torch", "--out", "m.onnx"])
    assert "belongs to --format" in refused(["export", str(small), "--as", "torchvision", "--labels"])
    assert "--as" in refused(["export", str(small)])
    with pytest.raises(InputError, match=r"gone\.onnx: no such file"):
        Predictor(tmp_path / "gone.onnx")
    for package, suffix in (("onnxruntime", ".onnx"), ("openvino", ".xml"), ("torch", ".pt2")):
        pytest.importorskip(package)
        (tmp_path / f"bad{suffix}").write_text("no network")
        with pytest.raises(InputError, match=rf"bad\{suffix}: .*read"):
            Predictor(tmp_path / f"bad{suffix}")


def test_what_is_exported_keeps_its_runtime(loaded: nn.Module) -> None:
    with pytest.raises(InputError, match=r"run by torch, not by openvino"):
        Predictor(loaded, runtime="openvino")


def test_a_missing_package_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install 'atrous\[export\]'"):
        Predictor(small, runtime="onnxruntime")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install 'atrous\[export\]'"):
        Predictor(tmp_path / "m.onnx")


def test_a_crf_layer_cannot_be_exported(tmp_path: Path) -> None:
    model = create_model("deeplab_v1", backbone="resnet18", num_classes=3, crf=True)
    with pytest.raises(InputError, match="set crf=False"):
        export(model, tmp_path / "m.pt2", "torch")


def test_what_counts_as_the_same_logits() -> None:
    """1e-3, in proportion to logits beyond a hundred; NaN never."""
    assert Parity(9e-4, 0.0, (), 20.0).holds
    assert not Parity(1.1e-3, 0.0, (), 20.0).holds
    assert Parity(0.9, 0.0, (), 1e5).holds
    assert not Parity(float("nan"), 0.0, (), 1.0).holds
