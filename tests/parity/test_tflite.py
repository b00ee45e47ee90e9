"""Google's published TFLite files: our models against the files' own operators, and against their runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_float
import torch
from PIL import Image
from seeded import difference

from atrous.data.pictures import read_image
from atrous.importers import import_checkpoint
from atrous.importers.tflite import Graph

SHARED = Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[2].parent / "shared"))
WEIGHTS, VOC, CAMVID = SHARED / "weights", SHARED / "data" / "VOCdevkit", SHARED / "data" / "camvid"
VOC_MODEL = "deeplabv3_mnv2_pascal_quant"
# file -> (the pictures it is for, share of pixels that its rounded runtime labels as our float model)
MODELS = {
    VOC_MODEL: (VOC, 0.99),
    "deeplabv3_mnv2_dm05_pascal_quant": (VOC, 0.99),
    "deeplabv3_mnv2_ade20k_int8": (CAMVID, 0.97),
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant": (CAMVID, 0.97),
}


@pytest.fixture(scope="session")
def path(request: pytest.FixtureRequest) -> Path:
    path = WEIGHTS / f"{request.param}.tflite"
    if not path.is_file():
        pytest.skip("the published TFLite files are not here")
    return path


def pictures(folder: Path, count: int) -> list[np.ndarray]:
    """RGB pictures of VOC val or CamVid val, spread over the set."""
    files = sorted((CAMVID / "val").glob("*.jpg"))
    if folder == VOC and (VOC / "VOC2012").is_dir():
        names = (VOC / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
        files = [VOC / "VOC2012" / "JPEGImages" / f"{name}.jpg" for name in names]
    if not files:
        pytest.skip("the data are not here")
    return [read_image(files[i]) for i in np.linspace(0, len(files) - 1, count).astype(int)]


def padded(picture: np.ndarray, size: tuple[int, int], grey: int) -> np.ndarray:
    """The picture, made smaller where it does not fit, on a ground of what normalises to 0."""
    height, width = picture.shape[:2]
    shrink = min(1, size[0] / height, size[1] / width)
    if shrink < 1:
        small = (round(width * shrink), round(height * shrink))
        picture = np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BILINEAR))
        height, width = picture.shape[:2]
    ground = np.full((*size, 3), grey, np.uint8)
    ground[:height, :width] = picture
    return ground


def normalized(model: Any, picture: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in model.metadata.normalization.__dict__.values())
    return ((torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std)[None]


@torch.inference_mode()
@pytest.mark.parametrize("path", MODELS, indirect=True)
def test_logits_are_the_files(path: Path, prove: Any) -> None:
    model, graph = import_checkpoint(path), Graph(path)
    size, grey = model.metadata.protocol.size, int(graph.tensors[graph.inputs[0]].zero_point[0])
    [picture] = pictures(MODELS[path.stem][0], 1)
    x = normalized(model, padded(picture, size, grey))
    found = difference(model(x).double(), tflite_float.logits(graph, x))
    prove("tflite", f"{path.stem} at {size[0]}x{size[1]}", found, "its operators, de-quantised")
