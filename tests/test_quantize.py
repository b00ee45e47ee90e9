from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
from atrous.data import SCENES, open_dataset
from atrous.errors import InputError
from atrous.predict import Predictor
from atrous.quantize import quantize, views_of
from atrous.runtimes import fold_batch_norm, load
from atrous.runtimes.export import at_protocols_stride

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned the colours of the scenes, in seconds."""
    torch.manual_seed(0)
    model = create_model("deeplab_v3", backbone="resnet18", num_classes=9, output_stride=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # statistics that follow in a few steps
    data = open_dataset("scenes", split="train")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(25):
        samples = [data[2 * step + i] for i in range(2)]
        x = (torch.stack([F.avg_pool2d(s.image.float(), 2) for s in samples]) / 255 - mean) / std
        target = torch.stack([s.mask[::2, ::2].long() for s in samples])
        loss = F.cross_entropy(model(x), target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("learned") / "scenes.safetensors"
    atrous.save(model.eval(), path, Metadata(SCENES, protocol=Protocol(longer_side=128)))
    return path


class First:
    """The first pictures of a data set."""

    def __init__(self, split: str, count: int) -> None:
        self.data, self.count = open_dataset("scenes", split=split), count
        self.labels = self.data.labels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        if index >= self.count:
            raise IndexError
        return self.data[index]


def test_views_are_what_the_network_is_shown(learned: Path) -> None:
    model, seen = atrous.load(learned), []
    pictures = First("val", 2)
    hook = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy().copy()))
    for protocol in (Protocol(longer_side=64, scales=(0.5, 1.0), flip=True), Protocol()):
        model.metadata.protocol = protocol  # type: ignore[union-attr]
        views, expected = views_of(model, pictures), seen
        seen.clear()
        for picture in pictures:
            Predictor(model, runtime="eager").label_map(picture.image)
        assert len(views) == len(expected)
        for view, shown in zip(views, expected, strict=True):
            np.testing.assert_array_equal(view, shown)
        seen.clear()
    hook.remove()


@pytest.mark.parametrize(("format", "package"), [("openvino", "nncf"), ("onnx", "onnxruntime")])
def test_int8_keeps_the_miou(learned: Path, tmp_path: Path, format: str, package: str) -> None:
    pytest.importorskip(package)
    path = tmp_path / ("m.xml" if format == "openvino" else "m.onnx")
    model = atrous.load(learned)
    found = quantize(model, path, format, First("train", 4), First("val", 4))
    assert found.before.miou > 0.1  # it has learned something
    assert found.loss <= 0.01
    plain = Predictor(learned).predict(
        open_dataset("scenes", split="val")[0].image.permute(1, 2, 0).numpy(), True
    )
    int8 = Predictor(path).predict(
        open_dataset("scenes", split="val")[0].image.permute(1, 2, 0).numpy(), True
    )
    difference = np.abs(plain.probabilities - int8.probabilities)
    assert 1e-4 < difference.mean() < 0.05  # it is another computation, and close
    assert load(path).graph["precision"] == "int8"  # type: ignore[index]
    if format == "onnx":
        for name, kernel, step in int8_kernels(path):
            exact = fold_batch_norm(model).get_parameter(name).double()
            assert (kernel - exact).sum((2, 3)).abs().max() <= 0.51 * step.max(), name


def int8_kernels(path: Path) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Names, values and steps of the spatial kernels in a file of ONNX Runtime's quantisation."""
    onnx = pytest.importorskip("onnx")
    numbers = {
        one.name: torch.tensor(onnx.numpy_helper.to_array(one)).double()
        for one in onnx.load(path).graph.initializer
    }
    kernels = {name: whole for name, whole in numbers.items() if whole.ndim == 4 and whole.shape[-1] > 1}
    assert len(kernels) == 20  # all of a ResNet-18 and of the pyramid
    for name, whole in kernels.items():
        name = name.removesuffix("_quantized")
        step = numbers[f"{name}_scale"].view(-1, 1, 1, 1)
        yield name.removeprefix("model."), whole * step, step


def test_views_at_the_protocols_output_stride(learned: Path) -> None:
    model = atrous.load(learned)
    model.metadata.protocol = Protocol(longer_side=64, output_stride=8)  # type: ignore[union-attr]
    (view,) = views_of(at_protocols_stride(model), First("val", 1))
    assert max(view.shape[2:]) == 64


def test_a_loss_above_the_bar_leaves_no_file(learned: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    with pytest.raises(InputError, match=r"m\.xml: not written, mIoU falls from .* more than -1"):
        quantize(
            atrous.load(learned),
            tmp_path / "m.xml",
            "openvino",
            First("train", 2),
            First("val", 1),
            largest_loss=-1,
        )
    assert not list(tmp_path.iterdir())


def test_what_int8_cannot_be(learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--format", "torch"], ["--format", "onnx", "--labels"]):
        with pytest.raises(SystemExit) as stop:
            main(["export", str(learned), *words, "--int8", "scenes", "--out", str(tmp_path / "m.xml")])
        assert stop.value.code == 2
        assert "--int8 is for --format onnx or openvino" in capsys.readouterr().err


def test_int8_on_no_picture_is_refused_before_the_work(learned: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    data = atrous.open_dataset("scenes", "val", length=2, size=(48, 64))
    with pytest.raises(InputError, match="limit -1 must be at least 1"):
        quantize(atrous.load(learned), tmp_path / "m.onnx", "onnx", [], data, limit=-1)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
