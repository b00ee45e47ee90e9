"""Classifiers of torchvision and timm as backbones: the features are theirs with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models as torchvision_models
from safetensors.torch import save_file
from seeded import TABLES, difference, draw_into, draw_picture
from torch import Tensor, nn

from atrous.config import Normalization
from atrous.errors import InputError
from atrous.importers import SOURCES, import_checkpoint
from atrous.importers.files import Content

SIZES = [(65, 97), (64, 96)]
PLAIN = {"dilate_from": "second", "multi_grid": (1,)}  # what torchvision and timm do; v3+'s own is another
HALF = (0.5, 0.5, 0.5)


class Stages(nn.Module):
    """The maps of torchvision's classifier behind the given layers, all in one row."""

    def __init__(self, layers: list[nn.Module], ends: tuple[int, ...]) -> None:
        super().__init__()
        self.layers, self.ends = nn.ModuleList(layers), ends

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = []
        for i, layer in enumerate(self.layers[: self.ends[-1] + 1]):
            x = layer(x)
            if i in self.ends:
                stages.append(x.clone())  # the next layer may write into it
        return stages


def resnet_stages(network: Any) -> Stages:
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return Stages([getattr(network, name) for name in names], (2, 4, 5, 6, 7))


def vgg_stages(network: Any) -> Stages:
    """With DeepLab's pools in place of its own: 3x3, and an average at the end (v1)."""
    layers = [nn.MaxPool2d(3, 2, 1) if isinstance(m, nn.MaxPool2d) else m for m in network.features]
    ends = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    layers[ends[-1]] = nn.Sequential(layers[ends[-1]], nn.AvgPool2d(3, 1, 1))
    return Stages(layers, tuple(ends))


# name -> (output strides, its maps, the options that make ours the same)
TORCHVISION: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {
    "resnet18": ((32,), resnet_stages, PLAIN),
    "resnet34": ((32,), resnet_stages, PLAIN),
    "resnet50": ((8, 16, 32), resnet_stages, PLAIN),
    "resnet101": ((16,), resnet_stages, PLAIN),
    "resnet152": ((16,), resnet_stages, PLAIN),
    "vgg16": ((32,), vgg_stages, {}),
    "mobilenet_v2": ((32,), lambda network: Stages(network.features, (1, 3, 6, 13, 17)), {}),
    "mobilenet_v3_large": ((32,), lambda network: Stages(network.features, (1, 3, 6, 12, 16)), {}),
}


def largest_difference(ours: nn.Module, theirs: nn.Module) -> float:
    found = []
    with torch.inference_mode():
        for size in SIZES:
            x = draw_picture(*size)
            pairs = list(zip(ours(x), theirs(x), strict=True))
            found += [difference(a, b) for a, b in pairs]
    return max(found)


@pytest.mark.parametrize(
    ("name", "output_stride"), [(name, s) for name, (strides, *_) in TORCHVISION.items() for s in strides]
)
def test_features_are_torchvisions(name: str, output_stride: int, prove: Any) -> None:
    _, stages, options = TORCHVISION[name]
    dilated = {"replace_stride_with_dilation": [False, output_stride < 16, output_stride < 32]}
    arguments = dilated if name in ("resnet50", "resnet101", "resnet152") else {}
    theirs = getattr(torchvision_models, name)(weights=None, **arguments)
    if name == "vgg16":
        theirs.classifier = nn.Sequential(nn.Linear(8, 8))  # its own has 120 million weights to draw
    draw_into(theirs)
    ours: Any = import_checkpoint(
        theirs.state_dict(), allow_missing="head", output_stride=output_stride, model_options=options
    )
    assert ours.report.source == "imagenet" and ours.config.backbone == name and not ours.report.unused
    assert ours.report.left_out
    found = largest_difference(ours.backbone, stages(theirs))
    pools = ", with DeepLab's pools" if name == "vgg16" else ""
    prove("imagenet", f"features of {name} at output stride {output_stride}{pools}", found, "its own model")


TIMM = [
    ("resnet18", 16, PLAIN), ("resnet34", 16, PLAIN), ("resnet50", 8, PLAIN), ("resnet101", 16, PLAIN),
    ("resnet50s", 16, PLAIN), ("xception41", 16, {}), ("xception65", 8, {}), ("xception71", 16, {}),
    ("mobilenetv2_100", 8, {}), ("mobilenetv2_100", 16, {}),
]  # fmt: skip
TIMM_ONLY = [
    "convnext_atto",
    "regnetx_002",
    "efficientnet_lite0",
    "mobilenetv3_large_100",
    "resnet50d",
    "seresnet50",
]


def timm_pair(name: str, output_stride: int, **options: Any) -> tuple[Any, Any]:
    """(ours, imported from the classifier of that name; its features_only with the same weights)."""
    weights = draw_into(timm.create_model(name)).state_dict()
    theirs: Any = timm.create_model(name, features_only=True, output_stride=output_stride)
    by_name = {key.replace(".", "_"): value for key, value in weights.items()}
    theirs.load_state_dict({key: by_name[key.replace(".", "_")] for key in theirs.state_dict()})
    ours = import_checkpoint(weights, allow_missing="head", output_stride=output_stride, **options)
    return ours, theirs.eval()


@pytest.mark.parametrize(("name", "output_stride", "options"), TIMM)
def test_features_are_timms(name: str, output_stride: int, options: dict[str, Any], prove: Any) -> None:
    ours, theirs = timm_pair(name, output_stride, model_options=options)
    assert not ours.config.backbone.startswith("timm:")
    assert not ours.report.unused and ours.report.left_out
    assert ours.metadata.normalization == (
        Normalization(HALF, HALF) if "xception" in name else Normalization()
    )
    found = largest_difference(ours.backbone, theirs)
    prove(
        ours.report.source,
        f"features of timm's {name} at output stride {output_stride}",
        found,
        "its own model",
    )


@pytest.mark.parametrize("name", TIMM_ONLY)
def test_features_of_any_network_of_timm(name: str, prove: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "convnext_atto":  # its own drops the last rows of sizes that 32 does not divide, ours does not
        monkeypatch.setattr("test_imagenet.SIZES", [(64, 96)])
    ours, theirs = timm_pair(name, 16, source="timm", backbone=f"timm:{name}", model="deeplab_v3")
    assert ours.config.backbone == f"timm:{name}"
    found = largest_difference(ours.backbone, theirs)
    prove("timm", f"features of {name} at output stride 16", found, "its own model")


@pytest.mark.parametrize(("name", "backbone"), [("resnet18", None), ("regnetx_002", "timm:regnetx_002")])
def test_the_pictures_channels_follow_the_weights(name: str, backbone: str | None) -> None:
    theirs = draw_into(timm.create_model(name, in_chans=5))
    given = {"source": "timm", "backbone": backbone} if backbone else {}
    model: Any = import_checkpoint(theirs.state_dict(), allow_missing="head", output_stride=32, **given)
    assert model.config.in_channels == 5
    x = draw_picture(64, 96, channels=5)
    with torch.inference_mode():
        assert difference(model.backbone(x)[-1], theirs.forward_features(x)) < 1e-5  # type: ignore[operator]


def test_what_does_not_fit_a_network_of_timm_is_named() -> None:
    weights = timm.create_model("regnetx_002").state_dict()
    given: dict[str, Any] = {"source": "timm", "backbone": "timm:regnetx_002", "allow_missing": "head"}
    name = "s1.b1.conv1.conv.weight"
    with pytest.raises(
        InputError, match=r"1 weights .* first network\.s1.* \(24, 32, 1, 1\) \(\(3,\) there\)"
    ):
        import_checkpoint(weights | {name: torch.ones(3)}, **given)
    with pytest.raises(InputError, match=r"first network\.s1\.b1\.conv1.* \(not there\)"):
        import_checkpoint({key: value for key, value in weights.items() if key != name}, **given)


def test_a_wrong_rate_would_show() -> None:
    ours, theirs = timm_pair("resnet50", 16, model_options={"dilate_from": "first", "multi_grid": (1,)})
    assert largest_difference(ours.backbone, theirs) > 0.01


def test_a_folder_of_the_hub(tmp_path: Path) -> None:
    save_file(draw_into(timm.create_model("regnetx_002")).state_dict(), tmp_path / "model.safetensors")
    said = {
        "architecture": "regnetx_002",
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(InputError, match="allow-missing head"):
        import_checkpoint(tmp_path)
    model: Any = import_checkpoint(
        tmp_path, allow_missing="head", num_classes=4, model="pspnet", output_stride=8
    )
    assert (model.report.source, model.config.backbone) == ("timm", "timm:regnetx_002")
    assert model.config.num_classes == 4 and model.config.name == "pspnet"
    assert model.metadata.normalization == Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("name", ["resnetblur18", "resnet18"])
def test_a_folder_says_which_of_two_with_the_same_names(name: str, tmp_path: Path) -> None:
    """Blur pooling has no weights: its ResNets have the names and shapes of the plain ones."""
    theirs = draw_into(timm.create_model(name))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}), encoding="utf-8")
    model: Any = import_checkpoint(tmp_path, allow_missing="head", output_stride=32)
    assert model.config.backbone == ("resnet18" if name == "resnet18" else f"timm:{name}")
    x = draw_picture(64, 96)
    with torch.inference_mode():
        assert difference(model.backbone(x)[-1], theirs.forward_features(x)) < 1e-5  # type: ignore[operator]


@pytest.mark.parametrize(
    "said",
    [
        {"architecture": "no_such_network"},
        {"architecture": "convnext_atto"},
        {"architecture": "vgg16"},
        {"architecture": "regnety_2560"},  # gigabytes, were it built before its weights are looked at
        {"architecture": "regnetx_002", "pretrained_cfg": {"mean": 3, "std": 4}},
        {"architecture": "regnetx_002", "pretrained_cfg": {"mean": [1], "std": [0]}},
        {"architecture": "regnetx_002", "pretrained_cfg": {"mean": [], "std": []}},
    ],
)
def test_a_made_up_folder_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    save_file(draw_into(timm.create_model("regnetx_002")).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(InputError):
        import_checkpoint(tmp_path, allow_missing="head")


def test_weights_that_are_no_network_here() -> None:
    weights = draw_into(timm.create_model("regnetx_002")).state_dict()
    with pytest.raises(InputError, match="no source"):
        import_checkpoint(weights)
    with pytest.raises(InputError, match=r"--options\.backbone timm:NAME"):
        import_checkpoint(weights, source="timm")
    with pytest.raises(InputError, match="give backbone"):
        import_checkpoint(weights, source="imagenet")


OWN = ("smp", "huggingface", "timm", "imagenet")


@pytest.mark.parametrize("table", sorted(path.stem for path in TABLES.glob("*.npz")))
def test_every_file_has_one_source(table: str) -> None:
    """No table of another project is taken for one of these four, and theirs for no other's."""
    with np.load(TABLES / f"{table}.npz") as file:
        shapes = json.loads(str(file["header"]))["shapes"]
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    takers = {name for name, source in SOURCES.items() if source.recognise(Content("", "torch", weights))}
    project = table.split("_")[0]
    if project in OWN:
        assert takers == {project}
    else:
        assert not takers & set(OWN)


@pytest.mark.parametrize(("name", "source"), [("resnet50", "imagenet"), ("vgg16", "imagenet"),
    ("mobilenet_v2", "imagenet"), ("mobilenet_v3_large", "imagenet")])  # fmt: skip
def test_a_classifier_has_one_source(name: str, source: str) -> None:
    with torch.device("meta"):
        weights = getattr(torchvision_models, name)(weights=None).state_dict()
    assert [s for s in SOURCES if SOURCES[s].recognise(Content("", "torch", weights))] == [source]
