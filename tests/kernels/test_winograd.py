"""Winograd's convolutions: the plain sum's numbers in float64, on any map, at any rate."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from atrous.kernels import winograd
from atrous.kernels.quick_inference import with_quick_inference
from atrous.kernels.winograd import Winograd, WinogradConv2d, pays, suits, tile_grid, transforms
from atrous.models import create_model
from atrous.runtimes import fold_batch_norm, prepare

pytestmark = pytest.mark.skipif(not winograd.available(), reason="no AVX, oneDNN, OpenMP or numba here")

# height, width, rate: whole tiles, parts of them, maps smaller than a tile or a rate, more tiles than one product takes
CASES = [
    (8, 8, 1),
    (29, 33, 1),
    (29, 33, 4),
    (13, 6, 5),
    (3, 2, 1),
    (1, 1, 1),
    (1, 40, 3),
    (5, 5, 12),
    (70, 75, 1),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [(8, 16), (16, 24), (40, 8), (64, 32)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_those_of_the_plain_sum(
    case: tuple[int, int, int], channels: tuple[int, int], bias: bool
) -> None:
    height, width, rate = case
    conv = nn.Conv2d(*channels, 3, padding=rate, dilation=rate, bias=bias)
    x = torch.randn(2, channels[0], height, width)
    y = Winograd(conv.weight, conv.bias, rate)(x)
    exact = copy.deepcopy(conv).double()(x.double())
    assert y.shape == exact.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_rounding_stays_small_with_many_channels() -> None:
    """And is compared with that of the plain sum: no more than some twenty times."""
    conv = nn.Conv2d(512, 64, 3, padding=2, dilation=2, bias=False)
    x = torch.rand(1, 512, 40, 40)
    exact = copy.deepcopy(conv).double()(x.double())
    ours, plain = (
        (y - exact).abs().max() / exact.abs().max() for y in (Winograd(conv.weight, None, 2)(x), conv(x))
    )
    assert ours <= max(1e-5, 20 * plain)


def test_layouts_and_slices_of_maps() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1)
    x = torch.randn(1, 32, 21, 23)
    for given in (x[:, :16], x[:, 16:].contiguous(memory_format=torch.channels_last), x[:, ::2, :, :]):
        torch.testing.assert_close(Winograd(conv.weight, conv.bias)(given), conv(given), atol=1e-5, rtol=0)


def test_within_inference_mode_and_then_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that is kept is of the first call."""
    monkeypatch.setattr(winograd, "_spare", [])
    conv = nn.Conv2d(16, 16, 3, padding=1)
    x = torch.randn(1, 16, 33, 33)
    with torch.inference_mode():
        tiled = Winograd(conv.weight, conv.bias)
        within = tiled(x)
    assert torch.equal(tiled(x), within)


def test_threads_do_not_share_memory() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    tiled = Winograd(conv.weight, conv.bias)
    pictures = [torch.randn(1, 32, 40, 40 + i) for i in range(12)]
    expected = [tiled(x) for x in pictures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(torch.equal(a, b) for a, b in zip(pool.map(tiled, pictures), expected, strict=True))
    assert len(winograd._spare) <= 5


def test_transforms_filter_exactly() -> None:
    """One dimension, in float64: back @ ((kernel @ g) * (into @ d)) is the sliding sum of g over d (paper sec. 4.1)."""
    back, kernel, into = transforms()
    generator = np.random.default_rng(0)
    d, g = generator.normal(size=winograd.SIDE), generator.normal(size=winograd.KERNEL)
    np.testing.assert_allclose(back @ ((kernel @ g) * (into @ d)), np.correlate(d, g, "valid"), atol=1e-12)
    assert np.array_equal(into, into.astype(np.float32)) and np.array_equal(back, back.astype(np.float32))


@pytest.mark.parametrize(("height", "width", "rate"), CASES)
def test_tiles_cover_the_map(height: int, width: int, rate: int) -> None:
    """Counted in another way: of every grid of every rate-th pixel, the longest."""
    rows, columns = tile_grid(height, width, rate)
    assert rows == -(-len(range(0, height, rate)) // 4)
    assert columns == -(-len(range(0, width, rate)) // 4)


def test_the_same_numbers_with_any_number_of_threads() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    x, before = torch.randn(1, 64, 45, 51), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(Winograd(conv.weight, conv.bias)(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_it_pays_for_wide_layers_on_large_maps_alone() -> None:
    assert pays((1, 256, 128, 128), 256, 1)  # the decoder of v3+ at 512x512
    assert pays((1, 512, 47, 63), 512, 4)  # block 4 of a ResNet at output stride 8
    assert not pays((1, 256, 9, 9), 256, 1)  # less than one product's tiles
    assert not pays((1, 16, 128, 128), 16, 1)  # the transforms take longer than they save
    assert not pays((1, 2048, 33, 33), 256, 36)  # a rate beyond the map: next to no products in the plain sum


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=2),
        nn.Conv2d(16, 16, 3, padding=1, dilation=2),
        nn.Conv2d(16, 16, 3, padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.Conv2d(16, 21, 3, padding=1),
    ],
    ids=str,
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    assert not suits(conv)
    (kept,) = with_quick_inference(nn.Sequential(conv))
    assert kept is conv


class Counted(nn.Conv2d):
    """A convolution of a class of its own."""


def test_classes_of_their_own_stay() -> None:
    (kept,) = with_quick_inference(nn.Sequential(Counted(16, 16, 3, padding=1)))
    assert type(kept) is Counted


def test_what_is_hooked_to_a_convolution_stays() -> None:
    """Such as the rounding of a quantised file (`fake_quantize`)."""
    conv = nn.Conv2d(16, 16, 3, padding=1)
    conv.register_forward_hook(lambda _module, _inputs, output: output.round())
    (kept,) = with_quick_inference(nn.Sequential(conv))
    assert type(kept) is WinogradConv2d
    x = torch.randn(1, 16, 9, 9)
    assert torch.equal(kept(x), kept(x).round())


def test_gradients_and_other_dtypes_take_the_plain_sum() -> None:
    conv = nn.Conv2d(256, 256, 3, padding=1)
    plain = copy.deepcopy(conv)
    (ours,) = with_quick_inference(nn.Sequential(conv))
    assert isinstance(ours, WinogradConv2d)
    x = torch.randn(1, 256, 64, 64, requires_grad=True)
    assert pays(tuple(x.shape), 256, 1)
    ours(x).square().sum().backward()
    assert ours.tiled is None
    assert x.grad is not None and ours.weight.grad is not None
    with torch.inference_mode():
        assert torch.equal(ours.double()(x.double()), plain.double()(x.double()))
        assert ours.tiled is None
        ours.float()(x)
    assert ours.tiled is not None


@pytest.mark.parametrize(
    ("name", "backbone", "stride", "options"),
    [
        ("deeplab_v1", "vgg16", 8, {}),
        ("deeplab_v2", "resnet18", 8, {}),
        ("pspnet", "resnet18", 8, {"deep_stem": True}),
        ("deeplab_v3", "resnet34", 8, {"extra_conv": True}),
        ("deeplab_v3plus", "mobilenet_v2", 16, {}),
        ("deeplab_v3plus", "xception65", 16, {}),
    ],
)
def test_models_keep_their_logits(name: str, backbone: str, stride: int, options: dict[str, bool]) -> None:
    """A picture large enough that tiles are taken; statistics of batch norm that keep the activations alive."""
    torch.manual_seed(0)
    model = create_model(name, backbone, num_classes=5, output_stride=stride, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.2, 1.0)
    x = torch.randn(1, 3, 321, 361).contiguous(memory_format=torch.channels_last)
    ours = prepare(model, torch.device("cpu"), "torch")
    with torch.inference_mode():
        found, plain = ours(x), fold_batch_norm(model)(x)
    assert any(isinstance(m, WinogradConv2d) and m.tiled is not None for m in ours.modules())
    assert (found - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_without_it_the_model_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "available", lambda: False)
    model = create_model("deeplab_v3", "resnet18", num_classes=3)
    assert not any(isinstance(m, WinogradConv2d) for m in with_quick_inference(model).modules())
