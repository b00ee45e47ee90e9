"""Our models in torchvision's names: its own model loads them strictly, and comes to the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.models.segmentation as torchvision_models
from seeded import difference, draw_into, draw_picture

from atrous.errors import InputError
from atrous.importers import import_checkpoint
from atrous.importers.export import export_state_dict
from atrous.models import create_model

FORM: dict[str, Any] = {"extra_conv": True, "atrous_rates": (12, 24, 36)}
RESNET: dict[str, Any] = {"output_stride": 8, "dilate_from": "second", "multi_grid": (1, 1, 1)}


def torchvisions(backbone: str, aux: bool, classes: int = 21) -> Any:
    build = getattr(torchvision_models, f"deeplabv3_{backbone}")
    return build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=aux)


@pytest.mark.parametrize("aux", [True, False])
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "mobilenet_v3_large"])
def test_there_and_back_is_exact(backbone: str, aux: bool) -> None:
    theirs = draw_into(torchvisions(backbone, aux)).state_dict()
    back = export_state_dict(import_checkpoint(theirs), "torchvision")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("resnet50", RESNET | {"aux": True}), ("mobilenet_v3_large", {"output_stride": 16})],
)
def test_a_model_built_here_runs_there(backbone: str, options: dict[str, Any], prove: Any) -> None:
    ours = draw_into(create_model("deeplab_v3", backbone, 5, **FORM, **options))
    theirs = torchvisions(backbone, bool(options.get("aux")), 5).eval()
    theirs.load_state_dict(export_state_dict(ours, "torchvision"))  # type: ignore[arg-type]
    picture = draw_picture(65, 97)
    with torch.inference_mode():
        found = difference(ours(picture), theirs(picture)["out"])
    prove("torchvision", f"deeplabv3_{backbone}, exported", found, "its own model")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"extra_conv": False}, "extra_conv=False, there True"),
        ({"atrous_rates": (6, 12, 18)}, "atrous_rates"),
        ({"output_stride": 16}, "output_stride=16, there 8"),
        ({"dilate_from": "first"}, "dilate_from='first', there 'second'"),
        ({"multi_grid": (1, 2, 4)}, "multi_grid"),
        ({"deep_stem": True}, "deep_stem"),
        ({"in_channels": 4}, "in_channels=4, there 3"),
        ({"align_corners": True}, "align_corners"),
        ({"separable": True}, "separable=True"),
        ({"form": "cascade"}, "form='cascade'"),
        ({"channels": 64}, "channels=64"),
        ({"backbone": "xception41"}, "xception41 has no place in torchvision"),
    ],
)
def test_what_torchvision_cannot_hold(change: dict[str, Any], named: str) -> None:
    options = {"backbone": "resnet50", **FORM, **RESNET} | change
    if options["backbone"] != "resnet50":
        options = {key: value for key, value in options.items() if key not in ("dilate_from", "multi_grid")}
    with torch.device("meta"):
        model = create_model("deeplab_v3", **options)
    with pytest.raises(InputError, match=named):
        export_state_dict(model, "torchvision")


def test_other_models_and_targets() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", "resnet50")
    with pytest.raises(InputError, match="no place in torchvision"):
        export_state_dict(model, "torchvision")
    with pytest.raises(InputError, match="unknown target"):
        export_state_dict(model, "torchvisoin")
