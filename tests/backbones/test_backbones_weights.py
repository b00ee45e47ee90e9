"""Weights from files of several makes; every way a file can be wrong says what is wrong."""

import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atrous.backbones import create_backbone
from atrous.backbones.vgg import decimate_fc
from atrous.backbones.weights import adapt_input
from atrous.errors import InputError


@pytest.fixture
def weights(blank, randomize):
    """A ResNet-18 as torchvision saves it, classifier included."""
    network = randomize(blank(create_backbone, "resnet18"))
    return network.state_dict() | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}


def resnet18_equals(network, weights):
    state_dict = network.state_dict()
    return all(torch.equal(state_dict[key], weights[key]) for key in state_dict)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}, "optimizer": {"lr": 0.1}},
        lambda w: {f"backbone.{k}": v for k, v in w.items()} | {"classifier.0.weight": torch.ones(2)},
        lambda w: {k: v for k, v in w.items() if "num_batches" not in k},
    ],
    ids=["plain", "state_dict", "model, DataParallel", "a segmentation network's", "old torch"],
)
def test_torch_files(wrap, weights, tmp_path):
    torch.save(wrap(weights), tmp_path / "w.pth")
    network = create_backbone("resnet18", pretrained=str(tmp_path / "w.pth"))
    for key in ("conv1.weight", "layer4.1.bn2.running_var", "layer2.0.downsample.0.weight"):
        assert torch.equal(network.state_dict()[key], weights[key])


def test_safetensors(weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    assert resnet18_equals(create_backbone("resnet18", pretrained=tmp_path / "w.safetensors"), weights)


@torch.no_grad()
def test_other_channels(weights, tmp_path):
    """A grey picture gives what its RGB form gives; a picture stacked twice what it gives once."""
    torch.save(weights, tmp_path / "w.pth")
    x = torch.randn(1, 3, 33, 33)
    rgb, grey, six = (
        create_backbone("resnet18", in_channels=n, pretrained=tmp_path / "w.pth").eval() for n in (3, 1, 6)
    )
    torch.testing.assert_close(grey(x[:, :1])[-1], rgb(x[:, :1].expand(-1, 3, -1, -1))[-1])
    torch.testing.assert_close(six(torch.cat([x, x], 1))[-1], rgb(x)[-1])


def test_adapt_input():
    weight = torch.arange(3.0).view(1, 3, 1, 1)
    assert adapt_input(weight, 1).flatten().tolist() == [3]
    assert adapt_input(weight, 4).flatten().tolist() == [0, 0.75, 1.5, 0]
    assert adapt_input(weight, 3) is weight


def test_a_file_that_does_not_fit(weights, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({k: v for k, v in weights.items() if not k.startswith("layer1.")}, path)
    with pytest.raises(
        InputError, match=r"w.pth do not fit resnet18: 20 missing \(layer1.0.conv1.weight, .*, \.\.\.\)"
    ):
        create_backbone("resnet18", pretrained=path)

    torch.save(weights | {"bn1.weight": torch.ones(32)}, path)
    with pytest.raises(InputError, match=r"1 of another shape \(bn1.weight \(32,\) instead of \(64,\)\)"):
        create_backbone("resnet18", pretrained=path)

    deeper = {k.replace("layer4.1.", "layer4.2."): v for k, v in weights.items() if "layer4.1." in k}
    torch.save(weights | deeper, path)
    with pytest.raises(InputError, match=r"12 unknown \(layer4.2.conv1.weight"):
        create_backbone("resnet18", pretrained=path)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="'imagnet': there is no such file, and it is not 'imagenet'"):
        create_backbone("resnet18", pretrained="imagnet")
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(InputError, match=f"{name} cannot be read as a file of weights"):
            create_backbone("resnet18", pretrained=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds no dictionary of weights but a list"):
        create_backbone("resnet18", pretrained=tmp_path / "list.pth")
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "module.pth")  # would run code: never unpickled
    with pytest.raises(InputError, match=r"module.pth cannot be read as a file of weights"):
        create_backbone("resnet18", pretrained=tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("name", "options", "file"),
    [
        ("resnet50", {}, "resnet50-0676ba61.pth"),
        ("vgg16", {}, "vgg16-397923af.pth"),
        ("mobilenet_v3_large", {}, "mobilenet_v3_large-8738ca79.pth"),
        ("resnet50", {"deep_stem": True}, "resnet50s.gluon_in1k.safetensors"),
        ("xception41", {}, "xception41.tf_in1k.safetensors"),
        ("drn_d_22", {"output_stride": 8}, "drn_d_22-4bd2f8ea.pth"),
    ],
)
def test_without_a_network(name, options, file, monkeypatch, tmp_path):
    """The message names the file and where to put it; a file that lies there is used."""

    def no_network(*_args, **_options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / file
    with pytest.raises(InputError) as error:
        create_backbone(name, pretrained="imagenet", **options)
    assert "cannot download http" in str(error.value)
    assert "no route to host" in str(error.value)
    assert f"put it at {place}" in str(error.value)

    network = create_backbone(name, **options)
    state_dict = network.state_dict()
    save_file(state_dict, place) if place.suffix == ".safetensors" else torch.save(state_dict, place)
    again = create_backbone(name, pretrained=True, **options).state_dict()
    assert all(torch.equal(again[key], state_dict[key]) for key in state_dict)


def test_no_published_weights():
    with pytest.raises(InputError, match="no published weights are known for drn_d_24: give a file"):
        create_backbone("drn_d_24", output_stride=8, pretrained="imagenet")
    with pytest.raises(InputError, match="no published weights are known for resnet18 with a deep stem"):
        create_backbone("resnet18", deep_stem=True, pretrained=True)
    with pytest.raises(InputError, match="unknown weights of resnet50 'IMAGENET1K_V3': did you mean"):
        create_backbone("resnet50", pretrained="IMAGENET1K_V3")


def test_decimate_fc():
    """Output 4i of the classifier is output i of fc6; of its 7x7 window rows and columns 0, 3, 6 stay."""
    fc6 = torch.zeros(1, 512, 7, 7)
    fc6[0, 5, 3, 6] = 1
    classifier = {
        "classifier.0.weight": fc6.flatten(1).expand(4096, -1),
        "classifier.0.bias": torch.arange(4096.0),
        "classifier.3.weight": torch.arange(4096.0).expand(4096, -1),
        "classifier.3.bias": torch.arange(4096.0),
    }
    fc = decimate_fc(classifier)
    assert fc["fc6.weight"].shape == (1024, 512, 3, 3)
    assert fc["fc6.weight"][7].nonzero().tolist() == [[5, 1, 2]]
    assert fc["fc6.bias"][10] == 40
    assert fc["fc7.weight"].shape == (1024, 1024, 1, 1)
    assert fc["fc7.weight"][3, 10].item() == 40
    assert fc["fc7.bias"][10] == 40
