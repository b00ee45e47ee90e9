from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from atrous import create_model
from atrous import train as training
from atrous.backbones import create_backbone
from atrous.config import Recipe
from atrous.errors import InputError
from atrous.importers.files import Content
from atrous.importers.mobile_deeplab import convert
from atrous.importers.names import indented
from atrous.importers.start import start_backbone
from atrous.layers import SameConv2d


@pytest.fixture
def pictures() -> torch.Tensor:
    """Drawn scenes: edges and colours, unlike noise."""
    from atrous.data import open_dataset

    data = open_dataset("scenes", "train", length=12, size=[65, 97])
    return torch.stack([torch.as_tensor(np.asarray(data[i].image)) for i in range(12)])


def backbone_weights(path: Path) -> dict[str, torch.Tensor]:
    """The file's own network: its batch norms only add the bias that is left of them."""
    weights = indented("backbone", convert(Content(str(path), "tflite")).renamed.weights)
    norms = {
        name: torch.full_like(weights[name], 1 - 1e-5) for name in weights if name.endswith("running_var")
    }
    return weights | norms


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def test_restored_batch_norm_is_the_folded_net(imagenet_file: Path, pictures: torch.Tensor) -> None:
    folded = create_backbone("mobilenet_v2", output_stride=16)
    folded.load_state_dict(backbone_weights(imagenet_file))
    network = create_model("deeplab_v3plus", backbone="mobilenet_v2", num_classes=3)
    normalization = start_backbone(network, imagenet_file, pictures)
    assert normalization.std == (0.5,) * 3
    assert normalization.mean == (0.498039,) * 3  # 127 / 255: the file rounds its zero point

    x = (pictures.float() / 255 - normalization.mean[0]) / normalization.std[0]
    expected = folded.eval()(x)
    for is_training in (False, True):
        for ours, theirs in zip(network.backbone.train(is_training)(x), expected, strict=True):
            assert relative(ours, theirs) < 1e-3
    variances = [m.running_var for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(variances) == 51
    assert torch.cat(variances).std() > 0.1  # estimated, not left at 1


@torch.no_grad()
def test_activations_are_those_of_a_trained_network(imagenet_file: Path, pictures: torch.Tensor) -> None:
    """ReLU6 cuts some of everything; with a wrong scale or order the features die or saturate."""
    network = create_backbone("mobilenet_v2", output_stride=32, padding="same")
    network.load_state_dict(backbone_weights(imagenet_file))
    stages = network.eval()(pictures.float() / 127.5 - 1)
    for stage in stages:
        assert 0.3 < float(stage.std()) < 10


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9)])
def test_same_padding(size: tuple[int, int]) -> None:
    """TensorFlow's rule: an even size is padded below and to the right only, where the stride is 2."""
    x = torch.randn(1, 2, *size)
    conv = SameConv2d(2, 4, 3, stride=2)
    top, left = (side % 2 for side in size)
    expected = F.conv2d(F.pad(x, (left, 1, top, 1)), conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(x), expected)
    assert expected.shape[-2:] == tuple(-(-side // 2) for side in size)


@torch.no_grad()
def test_paddings_agree_on_odd_sizes(blank_pair: tuple[nn.Module, nn.Module]) -> None:
    same, symmetric = blank_pair
    for size, equal in (((65, 97), True), ((64, 97), False)):
        x = torch.randn(1, 3, *size)
        assert torch.equal(same(x)[-1], symmetric(x)[-1]) is equal


@pytest.fixture
def blank_pair() -> tuple[nn.Module, nn.Module]:
    same, symmetric = (
        create_backbone("mobilenet_v2", padding=padding).eval() for padding in ("same", "symmetric")
    )
    symmetric.load_state_dict(same.state_dict())
    return same, symmetric


def test_a_training_starts(imagenet_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data_options": {"length": 6, "size": [64, 64]},
        "backbone": "mobilenet_v2",
        "crop_size": 65,
        "batch_size": 2,
        "iterations": 1,
        "workers": 0,
        "device": "cpu",
        "precision": "32-true",
        "out": str(tmp_path / "run"),
    }
    run = training.set_up(Recipe(init=str(imagenet_file), **settings))
    weights = backbone_weights(imagenet_file)
    assert torch.equal(run.network.backbone.features[0][0].weight, weights["features.0.0.weight"])
    assert run.metadata.normalization.std == (0.5,) * 3
    with pytest.raises(InputError, match="two ways to start"):
        training.set_up(Recipe(init=str(imagenet_file), pretrained="imagenet", **settings))


def test_what_cannot_be_started(imagenet_file: Path, pictures: torch.Tensor) -> None:
    with pytest.raises(InputError, match="starts a mobilenet_v2, not a ResNet"):
        start_backbone(create_model("deeplab_v3", backbone="resnet18"), imagenet_file, pictures)
    for options in ({"width": 0.5}, {"in_channels": 1}):
        network = create_model("deeplab_v3", backbone="mobilenet_v2", **options)
        with pytest.raises(InputError, match="starts a mobilenet_v2 of width 1 for RGB"):
            start_backbone(network, imagenet_file, pictures)
