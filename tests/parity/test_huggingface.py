"""transformers 5.23.0's MobileNetV2ForSemanticSegmentation: its logits, kept in tables, are ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_huggingface import CASES, OPTIONS
from safetensors.torch import save_file
from seeded import read_table, table_difference

from atrous.config import Normalization
from atrous.data.labels import VOC
from atrous.errors import InputError
from atrous.importers import huggingface, import_checkpoint


def options(name: str) -> dict[str, Any]:
    return {key: value for key, value in CASES[name].items() if key in OPTIONS}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_transformers(name: str, prove: Any) -> None:
    said = ", ".join(f"{key}={value}" for key, value in CASES[name].items())
    found = table_difference(f"huggingface_{name}", **options(name))
    prove("huggingface", f"MobileNetV2ForSemanticSegmentation {said}", found, "a table of its version 5.23.0")


@pytest.mark.parametrize("other", [{"output_stride": 16}, {"tf_padding": False}, {"layer_norm_eps": 0.05}])
def test_a_wrong_option_would_show(other: dict[str, Any]) -> None:
    assert table_difference("huggingface_os8", **other) > 0.01


def test_a_wrong_order_of_the_branches_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "HALF", 0)
    assert table_difference("huggingface_os8") > 0.01


def test_only_the_classifier_is_left_out() -> None:
    report: Any = import_checkpoint(read_table("huggingface_os8")[0]).report
    assert report.source == "huggingface" and not report.unused and not report.missing
    assert {name.rsplit(".", 2)[0] for name in report.left_out} == {"mobilenet_v2.conv_1x1"}


def save_folder(folder: Path, table: str, preprocessor: dict[str, Any] | None = None, **config: Any) -> None:
    save_file(read_table(table)[0], folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")


def test_a_folder_tells_the_rest(tmp_path: Path) -> None:
    save_folder(
        tmp_path, "huggingface_width_0.5",
        {"do_rescale": True, "rescale_factor": 1 / 127.5, "image_mean": [1.0, 1, 1], "image_std": [1.0, 0.5, 1]},
        model_type="mobilenet_v2", output_stride=16, depth_multiplier=0.5, tf_padding=False, layer_norm_eps=1e-4,
        id2label={"0": "road", "1": "sky", "2": "car"},
    )  # fmt: skip
    model: Any = import_checkpoint(tmp_path)
    assert model.config.output_stride == 16
    assert {key: model.config.options[key] for key in ("width", "padding", "eps")} == {
        "width": 0.5,
        "padding": "symmetric",
        "eps": 1e-4,
    }
    assert model.metadata.labels.names == ("road", "sky", "car")
    assert model.metadata.normalization == Normalization((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert model.report.unused == []
    alone: Any = import_checkpoint(tmp_path / "model.safetensors")
    assert (alone.config, alone.metadata) == (model.config, model.metadata)


def test_weights_that_are_spread_over_files(tmp_path: Path) -> None:
    save_folder(tmp_path, "huggingface_width_0.5", output_stride=16, depth_multiplier=0.5)
    expected: Any = import_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weights = read_table("huggingface_width_0.5")[0]
    names = list(weights)
    spread = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(spread.values()):
        save_file({name: weights[name] for name in names if spread[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": spread}), encoding="utf-8")
    model: Any = import_checkpoint(tmp_path)
    assert (model.config, model.report.missing) == (expected.config, [])
    assert all(value.equal(expected.state_dict()[name]) for name, value in model.state_dict().items())
    for bad in ({}, {"a": "../x.safetensors"}, {"a": 3, "b": "/etc/passwd"}, [1]):
        index.write_text(json.dumps({"weight_map": bad}), encoding="utf-8")
        with pytest.raises(InputError, match="its weight_map names no files beside it"):
            import_checkpoint(tmp_path)


def test_21_classes_without_names_are_vocs() -> None:
    model: Any = import_checkpoint(read_table("huggingface_os8")[0], num_classes=21)
    assert model.metadata.labels != VOC  # 3 of its own, the 21 are new
    assert model.metadata.normalization == Normalization((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("config", "preprocessor"),
    [
        ({"output_stride": "8"}, None),
        ({"output_stride": 7}, None),
        ({"hidden_act": "relu"}, None),
        ({"first_layer_is_expansion": False}, None),
        ({"depth_multiplier": 0.5}, None),
        ({"depth_multiplier": "wide"}, None),
        ({"depth_multiplier": [1]}, None),
        ({"depth_multiplier": float("inf")}, None),
        ({"layer_norm_eps": -1}, None),
        ({}, {"image_std": [float("nan")] * 3}),
        ({"layer_norm_eps": None}, None),
        ({"layer_norm_eps": "x"}, None),
        ({}, {"image_mean": 3}),
        ({}, {"image_std": [0, 0, 0]}),
        ({}, {"image_std": [1, 1]}),
        ({}, {"image_std": []}),
        ({}, {"rescale_factor": "x"}),
    ],
)
def test_a_made_up_configuration_is_refused(
    tmp_path: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None
) -> None:
    save_folder(tmp_path, "huggingface_os8", preprocessor, **config)
    with pytest.raises(InputError):
        import_checkpoint(tmp_path)


def test_a_width_with_other_shortcuts_is_refused() -> None:
    """At widths so small that rows have as many channels as those before, the shortcuts there are others."""
    weights, _, _ = read_table("huggingface_width_0.35")
    stem = huggingface.STEM
    for name in (f"{stem}.first_conv", f"{stem}.conv_3x3"):
        for key in [key for key in weights if key.startswith(f"{name}.") and weights[key].ndim]:
            weights[key] = weights[key][:8]
    with pytest.raises(InputError, match="both sides"):
        import_checkpoint(weights)
