"""The logits of mmsegmentation's models, from kept tables (make_mmseg.py writes them)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from seeded import TABLES, largest_difference, read_table, table_difference, with_options

from atrous.config import Normalization
from atrous.data.labels import CITYSCAPES
from atrous.errors import InputError
from atrous.importers import convert_content, import_checkpoint
from atrous.importers.convert import build
from atrous.importers.files import Content
from atrous.importers.label_names import labels_for
from atrous.importers.mmseg import convert

AGAINST = "mmsegmentation 1.2.2, a kept table"
MODELS = ("deeplabv3", "deeplabv3plus", "pspnet")
CASES: dict[str, dict[str, Any]] = {
    f"{m}_{backbone}-d8": {} for m in MODELS for backbone in ("r50", "r50b", "m-v2")
}
CASES |= {"deeplabv3plus_r101-d8": {}}
CASES |= {f"{m}_r50-d8_769x769": {"align_corners": True} for m in MODELS}
CASES |= {f"{m}_r50-d16-mg124": {"output_stride": 16} for m in MODELS[:2]}
CASES |= {"pspnet_r50-d32": {"output_stride": 32}}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_mmsegs(name: str, prove: Any) -> None:
    prove("mmseg", name, table_difference(f"mmseg_{name}", **CASES[name]), AGAINST)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("deeplabv3_r50b-d8", {"dilate_from": "first"}),
    ("deeplabv3_r50b-d8", {"atrous_rates": (6, 12, 18)}),
    ("deeplabv3_m-v2-d8", {"dilate_from": "first"}),
    ("deeplabv3_r50-d8_769x769", {"align_corners": False}),
    ("deeplabv3_r50-d16-mg124", {"dilate_from": "second"}),
]


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_a_wrong_option_would_show(name: str, wrong: dict[str, Any]) -> None:
    weights, pairs, step = read_table(f"mmseg_{name}")
    right = import_checkpoint(weights, **CASES[name])
    assert largest_difference(with_options(right, **wrong), pairs[:1], step) > 0.01


def test_the_order_of_the_branches_would_show() -> None:
    """Image pooling is its first branch and our last: the convolution behind them is permuted."""
    weights, pairs, step = read_table("mmseg_deeplabv3_r50b-d8")
    model = import_checkpoint(weights)
    with torch.no_grad():
        model.get_parameter("context.project.0.weight").copy_(weights["decode_head.bottleneck.conv.weight"])
    assert largest_difference(model, pairs[:1], step) > 0.01


def test_the_auxiliary_head_has_its_weights() -> None:
    for name in ("deeplabv3_r50b-d8", "deeplabv3plus_m-v2-d8", "pspnet_m-v2-d8"):
        weights, _, _ = read_table(f"mmseg_{name}")
        ours = import_checkpoint(weights).state_dict()
        for theirs, mine in (("convs.0.conv", "0"), ("convs.0.bn", "1"), ("conv_seg", "4")):
            assert torch.equal(weights[f"auxiliary_head.{theirs}.weight"], ours[f"aux.{mine}.weight"])


SETTINGS = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='MobileNetV2', dilations=(1, 1, 1, 2, 2, 4, 4), strides=(1, 2, 2, 1, 1, 1, 1)),
    decode_head=dict(type='PSPHead', align_corners=True),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
"""
OLD = {
    "mmseg_version": "0.5",
    "config": SETTINGS,
    "CLASSES": list("abcdefg"),
    "PALETTE": [[i, 0, 9] for i in range(7)],
}
NEW = {
    "cfg": SETTINGS,
    "dataset_meta": {"classes": tuple("abcdefg"), "palette": [[i, 0, 9] for i in range(7)]},
}


@pytest.mark.parametrize("meta", [OLD, NEW])
def test_a_checkpoint_tells_classes_and_settings(meta: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pspnet_769x769.pth"
    torch.save({"meta": meta, "state_dict": read_table("mmseg_pspnet_m-v2-d8")[0]}, path)
    model = import_checkpoint(path)
    assert model.report.source == "mmseg"
    assert not (model.report.unused or model.report.left_out or model.report.missing)
    assert model.metadata.labels.names == tuple("abcdefg")
    assert model.metadata.labels.palette[1] == (1, 0, 9)
    assert (model.config.output_stride, model.config.options["align_corners"]) == (8, True)
    assert (model.metadata.protocol.mode, model.metadata.protocol.size) == ("slide", (769, 769))
    assert import_checkpoint(path, align_corners=False).config.options["align_corners"] is False


def test_a_training_log_beside_the_weights_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of its training hold objects of mmengine, methods among them: read without mmengine, and not run."""
    name = "mmengine.logging.history_buffer"

    class HistoryBuffer:
        def mean(self) -> None:
            raise AssertionError("was run")

        def __setstate__(self, state: object) -> None:
            raise AssertionError("was run")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = name, "HistoryBuffer.mean"
    modules = {part: ModuleType(part) for part in ("mmengine", "mmengine.logging", name)}
    modules[name].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    with monkeypatch.context() as there:
        for part, module in modules.items():
            there.setitem(sys.modules, part, module)
        log = HistoryBuffer()
        log.__dict__ |= {"values": np.arange(3.0), "methods": {"mean": HistoryBuffer.mean}}
        weights = read_table("mmseg_pspnet_m-v2-d8")[0]
        path = tmp_path / "iter_100.pth"
        torch.save({"meta": NEW, "state_dict": weights, "message_hub": {"log_scalars": {"loss": log}}}, path)
    assert b"getattr" in path.read_bytes()
    assert import_checkpoint(path).metadata.labels.names == tuple("abcdefg")


def settings_of(name: str) -> str:
    with np.load(TABLES / f"mmseg_settings_{name}.npz") as file:
        return str(json.loads(str(file["header"]))["settings"])


# each file with settings -> where its network would be another one: options of ours
FOLLOWED: dict[str, list[dict[str, Any]]] = {
    "rates_eps": [{"atrous_rates": (6, 12)}, {"dilate_from": "second"}],
    "caffe_bins": [{"bins": (1, 2, 6)}, {"stride_on_first_1x1": False}, {"align_corners": True}],
    "d16_no_grid": [{"dilate_from": "next", "multi_grid": (1, 2, 4)}, {"atrous_rates": (2, 3, 4)}],
    "grid_at_8": [{"multi_grid": (1,)}, {"atrous_rates": (12, 24, 36)}, {"align_corners": False}],
    "mobilenet_16": [{"atrous_rates": (2, 3, 4)}, {"dilate_from": "second"}],
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_network_follows_the_settings(name: str, prove: Any) -> None:
    """Rates, multi-grid, strides, where a block dilates, style, bins and epsilons that the file's text names."""
    weights, pairs, step = read_table(f"mmseg_settings_{name}")
    content = Content("f", "torch", weights, {"meta": {"cfg": settings_of(name)}})
    model = build(content, "mmseg", convert(content))
    prove("mmseg", f"settings: {name}", largest_difference(model, pairs, step), AGAINST)
    for wrong in FOLLOWED[name]:
        assert largest_difference(with_options(model, **wrong), pairs, step) > 0.01, wrong
    if name in ("d16_no_grid", "mobilenet_16"):  # the map is too small for what their classes default to
        assert model.config.options["atrous_rates"] == (12, 24, 36)
    if name in ("rates_eps", "mobilenet_16"):
        variance = "backbone.stem.1.running_var" if name == "rates_eps" else "backbone.conv1.bn.running_var"
        ours = "backbone.conv1.1.running_var" if name == "rates_eps" else "backbone.features.0.1.running_var"
        assert torch.allclose(
            model.state_dict()[ours] - weights[variance], torch.tensor(1e-3 - 1e-5), rtol=1e-3
        )


def test_another_output_stride_keeps_the_settings_in_proportion() -> None:
    weights = read_table("mmseg_settings_rates_eps")[0]
    content = Content("f", "torch", weights, {"meta": {"cfg": settings_of("rates_eps")}})
    config = convert(content, output_stride=8).config
    assert (config.output_stride, config.options["atrous_rates"]) == (8, (8, 16))
    assert (config.options["dilate_from"], config.options["multi_grid"]) == ("first", (1,))


def test_settings_tell_d16() -> None:
    weights = read_table("mmseg_deeplabv3_r50-d16-mg124")[0]
    settings = """
backbone = dict(type='ResNetV1c', depth=50, strides=(1, 2, 2, 1), dilations=[1, 1, 1, 2], multi_grid=(1, 2, 4),
    contract_dilation=True)
model = dict(backbone=backbone, decode_head=dict(type='ASPPHead', dilations=(1, 6, 12, 18)))
"""
    found = convert(Content("f", "torch", weights, {"meta": {"config": settings}})).config
    assert (found.output_stride, found.options["atrous_rates"]) == (16, (6, 12, 18))
    assert (found.options["dilate_from"], found.options["multi_grid"]) == ("next", (1, 2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("contract_dilation=True", "contract_dilation=True, multi_grid=(1, 2, 4)"),
            "multi_grid .1, 2, 4.*together",
        ),
        (("contract_dilation=True", "contract_dilation=True, style='caffe'"), "style 'caffe' together"),
        (("contract_dilation=True", "dcn=dict(type='DCN')"), r"its dcn is \{'type': 'DCN'\}; None alone"),
        (("(1, 2, 1, 1)", "(1, 1, 2, 1)"), "its strides are .1, 1, 2, 1"),
        (("(1, 1, 2, 4)", "RATES"), "its dilations is 'RATES', not whole numbers"),
        (("(1, 12, 24, 36)", "(1, 1, 24, 36)"), "its dilations are .1, 1, 24, 36"),
        (
            ("backbone=dict(", "backbone=dict(type='ResNetV1d', "),
            "its backbone is 'ResNetV1d'; ResNet, ResNetV1c",
        ),
        (("'BN'", "'GN'"), "its norm_cfg is 'GN'; batch norm alone"),
        (("'BN'", "'BN', eps=7"), "eps of its norm_cfg is 7"),
        (("model =", "model = ="), "the settings in its meta are not readable"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(change: tuple[str, str], message: str) -> None:
    settings = """
model = dict(
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True, norm_cfg=dict(type='BN')),
    decode_head=dict(dilations=(1, 12, 24, 36)))
"""
    weights = read_table("mmseg_deeplabv3_r50-d8")[0]
    assert convert(Content("f", "torch", weights, {"meta": {"cfg": settings}})).config.output_stride == 8
    with pytest.raises(InputError, match=message):
        convert(Content("f", "torch", weights, {"meta": {"cfg": settings.replace(*change)}}))


MEAN, STD = "mean=[103.53, 116.28, 123.675]", "std=[57.0, 58, 59]"
PIXELS = {  # settings -> BGR, mean and std in its order of channels
    f"img_norm_cfg = dict({MEAN}, {STD}, to_rgb=False)": (True, (103.53, 116.28, 123.675), (57, 58, 59)),
    f"img_norm_cfg = dict({MEAN}, {STD})": (False, (103.53, 116.28, 123.675), (57, 58, 59)),
    f"model = dict(data_preprocessor=dict({MEAN}, {STD}))": (True, (103.53, 116.28, 123.675), (57, 58, 59)),
    f"data_preprocessor = dict({MEAN}, {STD}, bgr_to_rgb=True)": (
        *(False, (103.53, 116.28, 123.675)),
        (57, 58, 59),
    ),
    "data_preprocessor = dict(type='SegDataPreProcessor')": (True, (0, 0, 0), (1, 1, 1)),
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("pspnet_m-v2-d8", text) for text in PIXELS),
        *((f"deeplabv3_{stem}-d8", next(iter(PIXELS))) for stem in ("r50b", "r50")),
    ],
)
def test_pictures_are_normalised_as_the_settings_say(name: str, text: str) -> None:
    """Ours on RGB, 0 to 1, is the network of the file on what its own preprocessor makes of BGR, 0 to 255."""
    weights, pairs, _ = read_table(f"mmseg_{name}")
    ours = import_checkpoint({**weights})
    content = Content("f", "torch", weights, {"meta": {"cfg": text}})
    followed = build(content, "mmseg", convert(content))
    bgr, mean, std = PIXELS[text]
    rgb = torch.rand(pairs[0][0].shape, generator=torch.Generator().manual_seed(0))
    theirs = 255 * (rgb.flip(1) if bgr else rgb)
    theirs = (theirs - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    said = followed.metadata.normalization
    mine = (rgb - torch.tensor(said.mean).view(3, 1, 1)) / torch.tensor(said.std).view(3, 1, 1)
    with torch.inference_mode():
        wanted = ours(theirs)
        torch.testing.assert_close(followed(mine), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("", Normalization().mean),
        (f"img_norm_cfg = dict({MEAN}, {STD}, to_rgb=False)", Normalization().mean),
        (
            "model = dict(data_preprocessor=dict(mean=[51, 0, 0, 102], std=[255, 255, 255, 255]))",
            (0.2, 0, 0, 0.4),
        ),
    ],
)
def test_four_channels(text: str, mean: tuple[float, ...]) -> None:
    """The first convolution tells; their order is not turned there, and a mean of three is not theirs."""
    weights, pairs, _ = read_table("mmseg_pspnet_m-v2-d8")
    first = "backbone.conv1.conv.weight"
    fourth = torch.from_numpy(np.random.default_rng(0).standard_normal((32, 1, 3, 3), np.float32))
    content = Content(
        "f", "torch", weights | {first: torch.cat([weights[first], fourth], 1)}, {"meta": {"cfg": text}}
    )
    model = build(content, "mmseg", convert(content))
    assert (model.config.in_channels, model.metadata.normalization.mean) == (4, mean)
    x = pairs[0][0]
    with torch.inference_mode():
        wanted = import_checkpoint(weights)(x)
        found = model(torch.cat([x, torch.zeros_like(x[:, :1])], 1))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean=[1, 2], std=[1, 2, 3]", r"its mean is \(1, 2\), not 3 numbers"),
        ("mean=[1, 2, 3]", "its std is None, not 3 numbers"),
        ("mean=[1, 2, 3], std=[1, 0, 1]", r"its std is \(1, 0, 1\), not above 0"),
    ],
)
def test_a_normalisation_that_is_none_is_refused(text: str, message: str) -> None:
    content = Content(
        "f", "torch", read_table("mmseg_pspnet_m-v2-d8")[0], {"meta": {"cfg": f"img_norm_cfg = dict({text})"}}
    )
    with pytest.raises(InputError, match=message):
        convert(content)


def test_out_channels_1_keeps_both_class_names() -> None:
    weights, pairs, _ = read_table("mmseg_pspnet_m-v2-d8")
    weights = {k: v[:1] if ".conv_seg." in k else v for k, v in weights.items()}
    content = Content("f", "torch", weights, {"meta": {"dataset_meta": {"classes": ("sky", "crack")}}})
    ours = build(content, "mmseg", convert_content(content, "mmseg"))
    assert ours.metadata.labels.names == ("sky", "crack")
    assert any("probability of 0.3 there" in note for note in ours.report.notes)
    seven = import_checkpoint(read_table("mmseg_pspnet_m-v2-d8")[0])
    with torch.inference_mode():
        wanted = seven(pairs[0][0])[:, 0].sigmoid()
        torch.testing.assert_close(ours(pairs[0][0]).softmax(1)[:, 1], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": 7, "PALETTE": None},
        {"CLASSES": list("abc")},
        {"dataset_meta": "x", "cfg": 5},
        {"CLASSES": list("abcdefg"), "PALETTE": [[999, 0, 0]] * 7},
        7,
    ],
)
def test_damaged_metadata_is_not_believed(meta: Any, tmp_path: Path) -> None:
    torch.save({"meta": meta, "state_dict": read_table("mmseg_pspnet_m-v2-d8")[0]}, tmp_path / "f.pth")
    labels = import_checkpoint(tmp_path / "f.pth").metadata.labels
    assert len(labels) == 7
    assert max(max(colour) for colour in labels.palette) <= 255


def test_class_count_names_the_data_set_without_metadata() -> None:
    weights = dict(read_table("mmseg_pspnet_m-v2-d8")[0])
    weights |= {
        "decode_head.conv_seg.weight": torch.zeros(19, 64, 1, 1),
        "decode_head.conv_seg.bias": torch.zeros(19),
        "auxiliary_head.conv_seg.weight": torch.zeros(19, 256, 1, 1),
        "auxiliary_head.conv_seg.bias": torch.zeros(19),
    }
    assert import_checkpoint(weights).metadata.labels == CITYSCAPES == labels_for(19)


def test_another_backbone_is_a_clear_error() -> None:
    """ResNet-18 has basic blocks, whose second convolution is not dilated there."""
    weights = {k: v for k, v in read_table("mmseg_pspnet_r50-d32")[0].items() if ".conv3." not in k}
    with pytest.raises(InputError, match="its backbone is not among resnet50"):
        import_checkpoint(weights)


def test_other_heads_are_not_taken() -> None:
    """UPerNet has a pyramid too, FCN has none."""
    weights = read_table("mmseg_pspnet_m-v2-d8")[0]
    for other in (
        weights | {"decode_head.lateral_convs.0.conv.weight": torch.zeros(1)},
        {k: v for k, v in weights.items() if "psp_modules" not in k},
    ):
        with pytest.raises(InputError, match="no source"):
            import_checkpoint(other)
