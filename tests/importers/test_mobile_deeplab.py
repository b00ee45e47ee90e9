"""Files of our own models come back as these models, whatever form the converter gave them; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from atrous.checkpoint import load, save
from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.start import start_backbone
from atrous.importers.tflite import Graph
from atrous.models import create_model
from importers import fuzz
from importers.tflite_writer import Writer, chain, write_backbone, write_deeplab
from parity import tflite_float
from parity.seeded import difference, draw_into, draw_picture

SMALL: dict[str, Any] = {
    "num_classes": 5, "width": 0.125, "divisible_by": 1, "padding": "same", "atrous_rates": (), "align_corners": True,
    "channels": 8,
}  # fmt: skip
# what -> (model, other options, how it is written)
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("deeplab_v3", {}, {}),
    "dilation in batches": ("deeplab_v3", {"output_stride": 8}, {"batches": True}),
    "pad operators": ("deeplab_v3", {}, {"explicit_pad": "same"}),
    "symmetric pad operators": ("deeplab_v3", {"padding": "symmetric"}, {"explicit_pad": "symmetric"}),
    "activations apart": ("deeplab_v3", {}, {"activations": "apart"}),
    "half pixel centers": ("deeplab_v3", {"align_corners": False}, {"corners": (False, True)}),
    "atrous branches": ("deeplab_v3", {"atrous_rates": (6, 12, 18)}, {}),
    "separable branches": ("deeplab_v3", {"atrous_rates": (1, 2), "separable": True}, {"batches": True}),
    "a convolution more": ("deeplab_v3", {"extra_conv": True}, {}),
    "features of 1280": ("deeplab_v3", {"last_conv": True}, {}),
    "other rates": ("deeplab_v3", {"dilate_from": "first", "output_stride": 8}, {}),
    "decoder": ("deeplab_v3plus", {"decoder_convs": 1}, {}),
    "wide decoder": (
        "deeplab_v3plus",
        {"low_level_features": "depthwise", "separable": True, "align_corners": "asymmetric"},
        {"corners": (False, False)},
    ),
    "mixed separable": ("deeplab_v3plus", {"atrous_rates": (3,), "separable": True, "aspp_separable": False}, {}),
}  # fmt: skip


def small_model(name: str, options: dict[str, Any], backbone: str = "mobilenet_v2") -> Any:
    return draw_into(create_model(name, backbone, **SMALL | options))


def write(path: Path, model: Any, size: tuple[int, int] = (64, 96), order: Any = (), **how: Any) -> Path:
    path.write_bytes(write_deeplab(Writer(size, **how), model, *order))
    return path


@torch.inference_mode()
@pytest.mark.parametrize("order", [(), (False, True)], ids=["", "other order"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_model(form: str, order: Any, tmp_path: Path) -> None:
    name, options, how = FORMS[form]
    model = small_model(name, options)
    found = import_checkpoint(write(tmp_path / "a.tflite", model, order=order, **how))
    assert (found.config.name, found.config.num_classes) == (name, 5)
    assert found.config.output_stride == model.config.output_stride
    assert found.config.options["align_corners"] == model.config.options["align_corners"]
    assert (found.metadata.protocol.mode, found.metadata.protocol.size) == ("slide", (64, 96))
    assert not found.report.unused
    for size in ((64, 96), (65, 50)):
        picture = draw_picture(*size)
        assert difference(found(picture), model(picture)) < 1e-4


@torch.inference_mode()
def test_half_precision(tmp_path: Path) -> None:
    model, picture = small_model("deeplab_v3", {}), draw_picture(64, 96)
    found = import_checkpoint(write(tmp_path / "a.tflite", model, half=True))
    assert 1e-5 < difference(found(picture), model(picture)) < 1e-2


@torch.inference_mode()
def test_rounded_weights_and_the_other_backbone(tmp_path: Path) -> None:
    options = {"width": 0.25, "last_channels": 64}
    model = draw_into(
        create_model(
            "deeplab_v3",
            "mobilenet_edgetpu",
            **{k: v for k, v in SMALL.items() if k not in ("width", "divisible_by")} | options,
        )
    )
    picture = draw_picture(65, 65)
    exact = import_checkpoint(write(tmp_path / "a.tflite", model, (65, 65)))
    assert exact.config.backbone == "mobilenet_edgetpu"
    assert difference(exact(picture), model(picture)) < 1e-4
    rounded = import_checkpoint(write(tmp_path / "b.tflite", model, (65, 65), rounded=True))
    assert 1e-4 < difference(rounded(picture), model(picture)) < 1


@torch.inference_mode()
def test_activations_that_only_the_range_tells(tmp_path: Path) -> None:
    model = small_model("deeplab_v3", {})
    path, picture = write(tmp_path / "a.tflite", model, activations="range"), draw_picture(64, 96)
    found = import_checkpoint(path, fake_quantize=False)
    assert difference(found(picture), model(picture)) < 1e-4


@torch.inference_mode()
def test_activations_are_rounded_as_in_the_file(tmp_path: Path) -> None:
    path, picture = (
        write(tmp_path / "a.tflite", small_model("deeplab_v3", {}), activations="range"),
        draw_picture(64, 96),
    )
    rounded, plain = import_checkpoint(path), import_checkpoint(path, fake_quantize=False)
    expected = tflite_float.logits(Graph(str(path)), picture, rounded=True)
    gap = (plain(picture) - expected).abs().mean()
    assert gap > 0.01
    assert (
        rounded(picture) - expected
    ).abs().mean() < 0.01 * gap  # a value halfway between two steps may go astray
    save(rounded, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.config.fake_quantize.keys() == rounded.config.fake_quantize.keys() != set()
    assert torch.equal(again(picture), rounded(picture))


@torch.inference_mode()
def test_other_options(tmp_path: Path) -> None:
    model = small_model("deeplab_v3", {})
    path = write(tmp_path / "a.tflite", model)
    denser = import_checkpoint(path, output_stride=8)
    assert denser.backbone.output_stride == 8
    few = import_checkpoint(path, num_classes=3)
    assert few.classifier.weight.shape[0] == 3
    assert few.report.swapped == ["classifier.weight", "classifier.bias"]


def graph_of(writer: Writer, kind: str) -> bytes:
    """A network that begins like ours."""
    model = small_model("deeplab_v3", {})
    x, _ = write_backbone(writer, model.backbone, shortcuts=kind != "no shortcuts")
    pool = writer.pool(x)
    if kind == "two pools":
        writer.pool(x)
    if kind == "two heads":
        chain(writer, model.context.branches[0], x)
    if kind == "unknown operator":
        x = writer.operator("logistic", [x], writer.tensor(writer.shapes[x]))
        pool = writer.pool(x)
    return writer.finish(pool)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "no shortcuts",
            "its backbone is a mobilenet_v2 with other strides, rates, activations or shortcuts",
        ),
        ("two pools", "2 means over the whole picture"),
        ("unknown operator", "2 means over the whole picture"),
        ("two heads", "its head is neither an ASPP nor a classifier's"),
    ],
)
def test_other_networks_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(graph_of(Writer((65, 65)), kind))
    with pytest.raises(InputError, match=f"other.tflite: not a TFLite file that can be used here: {said}"):
        import_checkpoint(path)


def test_a_classifier_needs_a_head(tmp_path: Path) -> None:
    path = tmp_path / "classifier.tflite"
    path.write_bytes(graph_of(Writer((65, 65)), "classifier"))
    with pytest.raises(InputError, match="--allow-missing head"):
        import_checkpoint(path)
    model = import_checkpoint(path, allow_missing="head", num_classes=7)
    assert (model.config.backbone, model.config.output_stride) == ("mobilenet_v2", 16)
    assert {name.split(".")[0] for name, _ in model.report.missing} == {"context", "classifier"}
    other = import_checkpoint(path, allow_missing="head", model="pspnet")
    assert (other.config.name, other.config.output_stride) == ("pspnet", 8)
    with pytest.raises(InputError, match="did you mean 'pspnet'"):
        import_checkpoint(path, allow_missing="head", model="pspnett")


def test_a_whole_model_stays_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tflite", small_model("deeplab_v3", {}))
    with pytest.raises(
        InputError, match=r"a.tflite: a whole deeplab_v3; model is for files of a backbone alone"
    ):
        import_checkpoint(path, model="pspnet")


@torch.no_grad()
def test_a_training_starts_from_a_whole_deeplab(tmp_path: Path) -> None:
    model = small_model("deeplab_v3", {})
    path = write(tmp_path / "a.tflite", model)
    options = {key: value for key, value in SMALL.items() if key != "num_classes"}
    network = create_model("deeplab_v3", "mobilenet_v2", num_classes=4, **options, eps=1e-3)
    pictures = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    fresh = network.classifier.weight.clone()
    normalization = start_backbone(network, path, pictures)
    assert torch.equal(network.classifier.weight, fresh)  # of another size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (normalization.mean, normalization.std))
    x = (pictures / 255 - mean) / std
    expected = model.context(model.backbone(x)[-1])
    network.context.dropout.p = 0.0
    for is_training in (False, True):
        torch.testing.assert_close(
            network.train(is_training).context(network.backbone(x)[-1]), expected, atol=0.02, rtol=0.02
        )
    assert network.context.project[1].running_var.std() > 0.01  # estimated, not left at 1
    with pytest.raises(InputError, match=r"starts a mobilenet_v2 of width 0\.125"):
        start_backbone(create_model("deeplab_v3", "mobilenet_v2"), path, pictures)


def test_damaged_files(tmp_path: Path) -> None:
    options = {"low_level_features": "depthwise", "separable": True, "output_stride": 8}
    model = small_model("deeplab_v3plus", options)
    fuzz.check(write(tmp_path / "small.tflite", model, (33, 33), rounded=True, batches=True), 500)
