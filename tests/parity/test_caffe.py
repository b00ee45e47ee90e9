"""The authors' Caffe networks, read layer by layer from their prototxt files, and ours from the same .caffemodel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from seeded import difference, draw_picture, draw_weights
from torch import Tensor

from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.files import read
from importers.write_formats import write_caffemodel


class Caffe:
    """Caffe's layers on plain functions. Each draws its blobs when it first runs, and keeps them."""

    def __init__(self) -> None:
        self.blobs: dict[str, list[Tensor]] = {}

    def conv(
        self, x: Tensor, name: str, out: int, k: int, stride: int = 1, pad: int = 0, hole: int = 1,
        bias: bool = True, save_as: tuple[str, ...] = (),
    ) -> Tensor:  # fmt: skip
        if name not in self.blobs:
            shapes = {f"{name}.weight": (out, x.shape[1], k, k)} | ({f"{name}.bias": (out,)} if bias else {})
            self.blobs[name] = list(draw_weights(shapes).values())
        weight, *rest = self.blobs[name]
        self.blobs |= {key: [weight, *rest] for key in save_as}  # shared: saved under every name
        return F.conv2d(x, weight, rest[0] if rest else None, stride, pad, hole)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """BatchNorm, whose blobs are sums, then Scale."""
        bn, scale, count = f"bn{name}", f"scale{name}", 999.98
        if bn not in self.blobs:
            c = (x.shape[1],)
            names = (f"{bn}.mean", f"{bn}.running_var", f"{scale}.weight", f"{scale}.bias")
            mean, variance, gamma, beta = draw_weights(dict.fromkeys(names, c)).values()
            self.blobs[bn] = [mean * count, variance * count, torch.tensor([count])]
            self.blobs[scale] = [gamma, beta]
        mean, variance, divisor = self.blobs[bn]
        gamma, beta = (v.view(-1, 1, 1) for v in self.blobs[scale])
        mean, variance = (v.view(-1, 1, 1) / divisor for v in (mean, variance))
        return (x - mean) / torch.sqrt(variance + 1e-5) * gamma + beta


def pool(x: Tensor, stride: int) -> Tensor:
    """Caffe's Pooling of 3x3, pad 1: sizes round up."""
    return F.max_pool2d(x, 3, stride, 1, ceil_mode=True)


def interp(x: Tensor, zoom: int = 1, shrink: int = 1) -> Tensor:
    """Caffe's Interp: corners stay where they are."""
    size = [((n - 1) // shrink) * zoom + 1 for n in x.shape[-2:]]
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def vgg(net: Caffe, x: Tensor, pools: list[Tensor] | None = None) -> Tensor:
    for block, (convs, out) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        rate = 2 if block == 5 else 1
        for i in range(1, convs + 1):
            x = F.relu(net.conv(x, f"conv{block}_{i}", out, 3, pad=rate, hole=rate))
        x = pool(x, 2 if block < 4 else 1)
        if pools is not None:
            pools.append(x)
    return x


def fc(net: Caffe, x: Tensor, rate: int, suffix: str = "") -> Tensor:
    x = F.relu(net.conv(x, f"fc6{suffix}", 1024, 3, pad=rate, hole=rate))
    x = F.relu(net.conv(x, f"fc7{suffix}", 1024, 1))
    return net.conv(x, f"fc8_voc12{suffix}", 21, 1)


def large_fov(net: Caffe, x: Tensor) -> Tensor:
    x = F.avg_pool2d(vgg(net, x), 3, 1, 1)  # pool5a
    return interp(fc(net, x, 12), zoom=8)


def msc_large_fov(net: Caffe, x: Tensor) -> Tensor:
    """Scores of the picture and of pool1 .. pool4 beside fc8's."""
    pools: list[Tensor] = []
    deep = fc(net, F.avg_pool2d(vgg(net, x, pools), 3, 1, 1), 12)
    for i, (shallow, stride) in enumerate(zip((x, *pools[:4]), (8, 4, 2, 1, 1), strict=True)):
        y = F.relu(net.conv(shallow, f"scale{i}_conv1", 128, 3, stride=stride, pad=1))
        y = F.relu(net.conv(y, f"scale{i}_conv2", 128, 1))
        deep = deep + net.conv(y, f"fc8_scale{i}", 21, 1)
    return interp(deep, zoom=8)


def vgg_aspp(net: Caffe, x: Tensor) -> Tensor:
    x = vgg(net, x)
    return interp(sum(fc(net, x, rate, f"_{i}") for i, rate in enumerate((6, 12, 18, 24), 1)), zoom=8)  # type: ignore[arg-type]


def resnet(net: Caffe, x: Tensor, save_as: tuple[str, ...] = ()) -> Tensor:
    def conv_norm(x: Tensor, name: str, out: int, k: int, **how: int) -> Tensor:
        copies = tuple(f"res{name}{suffix}" for suffix in save_as)
        return net.norm(net.conv(x, f"res{name}", out, k, bias=False, save_as=copies, **how), name)

    x = pool(F.relu(net.norm(net.conv(x, "conv1", 64, 7, stride=2, pad=3, bias=False), "_conv1")), 2)
    for stage, (units, c, stride, rate) in enumerate(
        [(3, 64, 1, 1), (4, 128, 2, 1), (23, 256, 1, 2), (3, 512, 1, 4)], 2
    ):
        letters = ["a", "b", "c"] if units == 3 else ["a"] + [f"b{i}" for i in range(1, units)]
        for letter in letters:
            name, s = f"{stage}{letter}", stride if letter == "a" else 1
            shortcut = conv_norm(x, f"{name}_branch1", 4 * c, 1, stride=s) if letter == "a" else x
            y = F.relu(conv_norm(x, f"{name}_branch2a", c, 1, stride=s))
            y = F.relu(conv_norm(y, f"{name}_branch2b", c, 3, pad=rate, hole=rate))
            x = F.relu(shortcut + conv_norm(y, f"{name}_branch2c", 4 * c, 1))
    rates = enumerate((6, 12, 18, 24))
    return sum(net.conv(x, f"fc1_voc12_c{i}", 21, 3, pad=rate, hole=rate) for i, rate in rates)  # type: ignore[return-value]


def resnet_one_scale(net: Caffe, x: Tensor) -> Tensor:
    return interp(resnet(net, x), zoom=8)


def resnet_msc(net: Caffe, x: Tensor) -> Tensor:
    whole = resnet(net, x, save_as=("_res05", "_res075"))
    half = interp(resnet(net, interp(x, shrink=2)), zoom=2)
    most = interp(resnet(net, interp(x, zoom=3, shrink=4)), zoom=4, shrink=3)
    return interp(torch.maximum(torch.maximum(whole, most), half), zoom=8)


Net = Callable[[Caffe, Tensor], Tensor]


@torch.inference_mode()
def both(plain: Net, size: tuple[int, int], folder: Path, v1: bool, **options: Any) -> float:
    net, picture = Caffe(), draw_picture(*size)
    theirs = plain(net, picture.flip(1))  # Caffe's pictures are BGR
    ours = import_checkpoint(write_caffemodel(folder / "net.caffemodel", net.blobs, v1), **options)
    return difference(ours(picture), theirs)


NETS: dict[str, tuple[Net, tuple[int, int], bool]] = {
    "v1 LargeFOV, VGG-16": (large_fov, (65, 97), True),
    "v1 MSc-LargeFOV, VGG-16": (msc_large_fov, (65, 97), True),
    "v2 ASPP-L, VGG-16": (vgg_aspp, (65, 97), True),
    "v2 ASPP-L, ResNet-101": (resnet_one_scale, (65, 97), False),
    "v2 ASPP-L, ResNet-101, three scales": (resnet_msc, (65, 97), False),
}


@pytest.mark.parametrize("name", NETS)
def test_logits_are_caffes(name: str, tmp_path: Path, prove: Any) -> None:
    plain, size, v1 = NETS[name]
    found = both(plain, size, tmp_path, v1)
    prove("caffe", f"{name} at {size[0]}x{size[1]}", found, "its prototxt, layer by layer")


def test_wrong_rates_would_show(tmp_path: Path) -> None:
    assert both(vgg_aspp, (65, 65), tmp_path, True, head="aspp_s") > 0.1


def test_pictures_are_normalised_as_there(tmp_path: Path) -> None:
    """BGR, 0..255, minus the mean; ours has RGB."""
    net = Caffe()
    rgb = torch.rand(1, 3, 33, 33) * 255
    with torch.inference_mode():
        theirs = large_fov(net, rgb.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1))
        model = import_checkpoint(write_caffemodel(tmp_path / "net.caffemodel", net.blobs, True))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in vars(model.metadata.normalization).values())
        assert difference(model((rgb / 255 - mean) / std), theirs) <= 1e-4
    assert model.metadata.labels.names[15] == "person"


@pytest.mark.parametrize("how", [{}, {"v1": True}, {"double": True}, {"packed": False}], ids=str)
def test_blobs_come_back_as_they_were_written(how: dict[str, bool], tmp_path: Path) -> None:
    blobs = draw_weights({"conv.weight": (4, 3, 3, 3), "conv.bias": (4,)})
    file = write_caffemodel(tmp_path / "small.caffemodel", {"conv1": list(blobs.values())}, **how)
    found = read(file)
    assert found.kind == "caffe" and list(found.tensors) == ["conv1.0", "conv1.1"]
    assert torch.equal(found.tensors["conv1.0"], blobs["conv.weight"])
    assert torch.equal(found.tensors["conv1.1"].flatten(), blobs["conv.bias"])


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    file = write_caffemodel(tmp_path / "lenet.caffemodel", {"ip1": [torch.rand(3, 2)]})
    with pytest.raises(InputError, match=r"lenet\.caffemodel: of no source .* ip1\.0"):
        import_checkpoint(file)
    (tmp_path / "empty.caffemodel").write_bytes(b"\n\x03net")
    with pytest.raises(InputError, match="no weights"):
        import_checkpoint(tmp_path / "empty.caffemodel")
