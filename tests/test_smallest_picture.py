"""Models that do not take every size: the Xception of VainF/DeepLabV3Plus-Pytorch, whose convolutions lose the rim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import atrous
from atrous.cli import main
from atrous.errors import InputError
from atrous.importers.vainf import XCEPTION
from atrous.models import create_model, smallest_picture
from atrous.predict import Predictor
from atrous.runtimes import load
from atrous.runtimes.export import export


def vainf(output_stride: int = 16, **options: Any) -> Any:
    torch.manual_seed(0)
    return create_model(
        "deeplab_v3", "legacy_xception", 5, output_stride, **XCEPTION, extra_conv=True, **options
    ).eval()


@pytest.mark.parametrize(
    ("options", "smallest"),
    [({}, 71), ({"output_stride": 8}, 103), ({"msc": True}, 142), ({"pad_stem": True, "pad_exit": None}, 1)],
)
def test_the_smallest_picture_is_the_one_that_it_says(options: dict[str, Any], smallest: int) -> None:
    model = (
        vainf(**options)
        if "pad_stem" not in options
        else create_model("deeplab_v3", "legacy_xception").eval()
    )
    assert smallest_picture(model) == smallest
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, smallest, smallest + 9)).shape[-2:] == (smallest, smallest + 9)
        if smallest > 1:
            with pytest.raises(InputError, match="is too small"):
                model(torch.zeros(1, 3, smallest - 1, smallest + 9))


def test_a_smaller_picture_is_padded_with_the_mean_colour() -> None:
    model = vainf()
    image = np.random.default_rng(0).integers(0, 256, (40, 99, 3), dtype=np.uint8)
    padded = torch.zeros(1, 3, 80, 112)  # whole strides of 16 from 71 up
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    padded[..., :40, :99] = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        expected = model(padded)[0, :, :40, :99].softmax(0)
    result = Predictor(model, device="cpu").predict(image, probabilities=True)
    assert result.probabilities is not None
    np.testing.assert_allclose(result.probabilities, expected.numpy(), atol=1e-5)


def test_by_the_command_and_as_a_file_of_torch(tmp_path: Path) -> None:
    model = vainf()
    atrous.save(model, tmp_path / "m.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "small.png")
    main(
        [
            "predict",
            str(tmp_path / "m.safetensors"),
            str(tmp_path / "small.png"),
            "--out",
            str(tmp_path / "out"),
        ]
    )
    labels = np.array(Image.open(tmp_path / "out" / "small.png"))
    np.testing.assert_array_equal(labels, Predictor(model, device="cpu").predict(image).labels)

    parity = export(model, tmp_path / "m.pt2", "torch")
    assert parity.difference < 1e-3
    assert parity.sizes == ((1, 102, 102), (2, 135, 103), (1, 71, 198))
    again: Any = load(tmp_path / "m.pt2")
    np.testing.assert_array_equal(Predictor(again).predict(image).labels, labels)
    with pytest.raises(InputError, match=r"m.pt2: a picture of 70x99 is too small, its sides need 71 pixels"):
        again(torch.zeros(1, 3, 70, 99))


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_as_a_file_of_other_runtimes(format: str, output_stride: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime" if format == "onnx" else "openvino")
    path = tmp_path / ("m.onnx" if format == "onnx" else "m.xml")
    assert export(vainf(output_stride), path, format).difference < 1e-3
