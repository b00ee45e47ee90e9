"""segmentation_models.pytorch 0.6.0: its logits, kept in tables, are ours with the same weights; and the way back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from make_smp import CASES
from safetensors.torch import save_file
from seeded import draw_weights, largest_difference, read_table, table_difference

from atrous.errors import InputError
from atrous.importers import import_checkpoint, smp
from atrous.importers.export import export_state_dict
from atrous.models import create_model


@pytest.mark.parametrize("name", CASES)
def test_logits_are_smps(name: str, prove: Any) -> None:
    kind, encoder, arguments, options, _ = CASES[name]
    said = ", ".join(f"{key}={value}" for key, value in arguments.items())
    found = table_difference(f"smp_{name}", **options)
    prove("smp", f"{kind} {encoder} {said}".strip(), found, "a table of its version 0.6.0")


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_is_exact(name: str) -> None:
    weights, _, _ = read_table(f"smp_{name}")
    model = import_checkpoint(weights, **CASES[name][3])
    assert model.report.source == "smp" and not model.report.unused and not model.report.missing  # type: ignore[union-attr]
    back = export_state_dict(model, "smp")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_a_wrong_option_would_show() -> None:
    assert table_difference("smp_v3plus_resnet18", atrous_rates=(6, 12, 18)) > 0.01
    assert table_difference("smp_v3_resnet50", output_stride=16) > 0.01
    assert table_difference("smp_v3plus_mobilenet_8", output_stride=16) > 0.01


def test_a_wrong_order_of_the_pyramid_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smp, "turn_joined", lambda found: found)
    assert table_difference("smp_psp_resnet18") > 0.01


def save_folder(folder: Path, table: str, **config: Any) -> None:
    """As its save_pretrained writes it."""
    weights, _, _ = read_table(table)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_folder_says_what_weights_do_not(tmp_path: Path) -> None:
    save_folder(
        tmp_path, "smp_v3plus_whole_aspp", _model_class="DeepLabV3Plus", activation=None, encoder_name="resnet18",
        encoder_output_stride=8, encoder_depth=5, decoder_atrous_rates=[6, 12, 18], in_channels=3, classes=3,
    )  # fmt: skip
    model = import_checkpoint(tmp_path)
    assert model.config.output_stride == 8
    assert model.config.options["atrous_rates"] == (6, 12, 18)
    assert import_checkpoint(tmp_path / "model.safetensors").config == model.config
    assert import_checkpoint(tmp_path, output_stride=16).config.output_stride == 16
    assert model(torch.zeros(1, 3, 65, 97)).shape == (1, 3, 65, 97)  # its own takes multiples of 8 alone


def test_the_epsilon_of_a_decoders_norm(tmp_path: Path) -> None:
    """The variances in the file are smaller by what its epsilon is larger: the logits are those of the table."""
    weights, pairs, step = read_table("smp_psp_resnet18")
    for name in weights:
        if name.startswith("decoder.") and name.endswith("running_var"):
            weights[name] = weights[name] - (1e-2 - 1e-5)
    save_file(weights, tmp_path / "model.safetensors")
    for eps, right in ((1e-2, True), (1e-5, False)):
        norm = {"type": "batchnorm", "eps": eps}
        said = {"encoder_name": "resnet18", "decoder_use_norm": norm, "upsampling": 8 if right else 4}
        (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
        model: Any = import_checkpoint(tmp_path)
        assert (largest_difference(model, pairs, step) <= 1e-4) == right
        assert ["its upsampling 4 gives" in note for note in model.report.notes] == [True] * (not right)
    for norm in ({"type": "layernorm"}, {"type": "batchnorm", "eps": 7}, False):  # type: ignore[assignment]
        said = {"encoder_name": "resnet18", "decoder_use_norm": norm}
        (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
        with pytest.raises(InputError, match="its decoder_use_norm is"):
            import_checkpoint(tmp_path)


@pytest.mark.parametrize(("width", "depth"), [(128, 3), (512, 5)])
def test_how_deep_timms_encoder_is_read(width: int, depth: int) -> None:
    """As the decoder's first weights tell: their input has the channels of the encoder's last stage."""
    network = timm.create_model("resnet18", features_only=True, out_indices=range(depth))
    shapes = {f"encoder.model.{name}": tuple(w.shape) for name, w in network.state_dict().items()}
    for name, weight in read_table("smp_psp_resnet18")[0].items():
        if name.startswith("decoder.psp."):  # there 128 channels are read, and each level has a quarter
            shapes[name] = tuple({128: width, 32: width // 4}.get(n, n) for n in weight.shape)
    channels = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (512,))
    shapes |= {f"decoder.conv.1.{name}": shape for name, shape in channels.items()}
    shapes |= {"decoder.conv.0.weight": (512, 2 * width, 1, 1)}
    shapes |= {"segmentation_head.0.weight": (3, 512, 3, 3), "segmentation_head.0.bias": (3,)}
    model = import_checkpoint(draw_weights(shapes), encoder="tu-resnet18")
    assert model.config.options.get("encoder_depth", 5) == depth


def test_a_timm_encoders_earlier_name(tmp_path: Path) -> None:
    """It keeps "timm-regnetx_002" in config.json and builds its "tu-regnetx_002"."""
    save_folder(tmp_path, "smp_v3_tu_regnetx_002", encoder_name="timm-regnetx_002", encoder_output_stride=8)
    _, pairs, step = read_table("smp_v3_tu_regnetx_002")
    assert largest_difference(import_checkpoint(tmp_path), pairs, step) <= 1e-4


@pytest.mark.parametrize(
    "config",
    [
        {"encoder_name": "xception"},
        {"encoder_name": 5},
        {"encoder_name": "tu-no_such_network"},
        {"encoder_name": "resnet50"},
        {"encoder_output_stride": "8"},
        {"encoder_output_stride": 7},
        {"encoder_output_stride": 2},
        {"encoder_name": "tu-resnet50"},
        {"encoder_output_stride": -8},
        {"encoder_depth": 9},
        {"encoder_depth": 1},
        {"encoder_depth": True},
        {"encoder_depth": [5]},
        {"decoder_atrous_rates": 6},
        {"decoder_atrous_rates": [6, -1, 2]},
        {"decoder_atrous_rates": [6, 12]},
        {"decoder_atrous_rates": {"a": 1}},
    ],
)
def test_a_made_up_configuration_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    save_folder(tmp_path, "smp_v3plus_resnet18", **config)
    with pytest.raises(InputError):
        import_checkpoint(tmp_path)


def test_a_training_scripts_own_config_is_not_its_configuration(tmp_path: Path) -> None:
    weights, _, _ = read_table("smp_v3_resnet18")
    torch.save({"state_dict": weights, "config": "train.yaml"}, tmp_path / "last.pth")
    assert import_checkpoint(tmp_path / "last.pth").config.backbone == "resnet18"


def test_names_of_version_0_3() -> None:
    weights, _, _ = read_table("smp_v3_resnet18")
    before = {"aspp": "0", "conv": "1", "bn": "2"}
    old = {re.sub(r"(?<=^decoder\.)\w+", lambda m: before[m[0]], name): w for name, w in weights.items()}
    ours, theirs = import_checkpoint(old).state_dict(), import_checkpoint(weights).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_any_number_of_input_channels() -> None:
    weights, _, _ = read_table("smp_v3_resnet18")
    weights |= draw_weights({"encoder.conv1.weight": (64, 4, 7, 7)})
    assert import_checkpoint(weights).config.in_channels == 4


def test_any_number_of_input_channels_of_timms_encoders() -> None:
    weights, _, _ = read_table("smp_v3_tu_regnetx_002")
    weights |= draw_weights({"encoder.model.stem.conv.weight": (32, 4, 3, 3)})
    model = import_checkpoint(weights, encoder="tu-regnetx_002")
    assert model.config.in_channels == 4
    stem = model.state_dict()["backbone.network.stem.conv.weight"]
    assert torch.equal(stem, weights["encoder.model.stem.conv.weight"])


def test_a_damaged_encoders_weight_is_named() -> None:
    weights, _, _ = read_table("smp_v3_resnet18")
    name = "encoder.layer3.0.conv1.weight"
    with pytest.raises(InputError, match=r"1 weights are missing, first backbone\.layer3\.0\.conv1\.weight"):
        import_checkpoint({key: value for key, value in weights.items() if key != name})
    with pytest.raises(InputError, match=r"layer3\.0\.conv1\.weight \(2,\) where \(256, 128, 3, 3\)"):
        import_checkpoint(weights | {name: torch.ones(2)})
    other = {key: value for key, value in weights.items() if "encoder.layer4." not in key}
    with pytest.raises(InputError, match="its encoder is not here"):
        import_checkpoint(other)


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("deeplab_v3", {}, "extra_conv=False"),
        ("deeplab_v3plus", {"backbone": "xception65"}, "xception65"),
        ("deeplab_v2", {}, "deeplab_v2"),
        ("pspnet", {"backbone": "resnet50"}, "aux=True"),
        ("deeplab_v3plus", {"backbone": "mobilenet_v2"}, "last_conv=False"),
        ("deeplab_v3plus", {"backbone": "resnet18", "output_stride": 32}, "output_stride=32"),
    ],
)
def test_what_it_cannot_hold(model: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        export_state_dict(create_model(model, **{"backbone": "resnet18"} | options), "smp")


def test_a_model_built_for_it() -> None:
    """Not imported: made here with the options that fit, and loaded there by name."""
    model = create_model(
        "deeplab_v3plus", "resnet18", 3, 16, align_corners=True, dilate_from="first", separable="plain",
        aspp_conv=True, decoder_convs=1,
    )  # fmt: skip
    weights, _, _ = read_table("smp_v3plus_resnet18")
    back = export_state_dict(model, "smp")
    assert {name: value.shape for name, value in back.items()} == {n: v.shape for n, v in weights.items()}
