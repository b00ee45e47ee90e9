"""How each paper evaluates, by name, and who is heard first: what is given, then the preset, then the checkpoint.

    plain    scale 1, no flip, no CRF: what a training run itself measures
    v1       output stride 8, the CRF behind it; multi-scale is in the model, `msc` (v1 sec. 4.2, 4.3)
    v2       the same (v2 sec. 4.1.2)
    pspnet   output stride 8, windows that overlap by a third, six scales, flip (PSPNet sec. 5.1 and authors' code)
    v3       output stride 8, six scales, flip, probabilities averaged (v3 sec. 4.1)
    v3plus   the same (v3+ sec. 4.3, tab. 5)

A preset leaves alone what its paper does not speak of or finds for each data set: `longer_side`, the size of the
windows, and the parameters of the CRF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from atrous.config import Protocol
from atrous.errors import choose

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # v3 sec. 4.1; PSPNet's authors' code has the same
PSPNET_WINDOW = (473, 473)  # its crop on VOC and ADE20K (authors' code); 713 on Cityscapes

_DIRECT: dict[str, Any] = {"mode": "direct", "average": "probabilities"}
_ONE_VIEW: dict[str, Any] = _DIRECT | {"scales": (1.0,), "flip": False}
_ALL_VIEWS: dict[str, Any] = {"scales": SCALES, "flip": True, "average": "probabilities", "crf": False}

PRESETS: dict[str, dict[str, Any]] = {
    "plain": _ONE_VIEW | {"crf": False, "output_stride": None},
    "v1": _ONE_VIEW | {"crf": True, "output_stride": 8},
    "v2": _ONE_VIEW | {"crf": True, "output_stride": 8},
    "pspnet": _ALL_VIEWS | {"mode": "slide", "overlap": 1 / 3, "output_stride": 8},
    "v3": _DIRECT | _ALL_VIEWS | {"output_stride": 8},
    "v3plus": _DIRECT | _ALL_VIEWS | {"output_stride": 8},
}


def settle(
    checkpoint: Protocol,
    preset: str | None = None,
    given: Mapping[str, Any] | None = None,
    window: tuple[int, int] | None = None,
) -> Protocol:
    """The protocol of a prediction: `given` settings (None: not given), else the preset's, else the checkpoint's.

    crf: True keeps the checkpoint's parameters, or takes the CRF's own where it has none; False is no CRF.
    longer_side: 0 takes pictures as they are. window: a size for modes that need one where nobody names it.
    Raises InputError for an unknown preset and for settings that contradict each other.
    """
    settings = dict(PRESETS[choose("protocol", preset, PRESETS)]) if preset else {}
    settings |= {key: value for key, value in (given or {}).items() if value is not None}
    if settings.get("crf") is True:
        settings["crf"] = checkpoint.crf or {}
    elif settings.get("crf") is False:
        settings["crf"] = None
    if settings.get("longer_side") == 0:
        settings["longer_side"] = None
    if settings.get("mode", checkpoint.mode) != "direct" and not (settings.get("size") or checkpoint.size):
        settings["size"] = window or (PSPNET_WINDOW if preset == "pspnet" else None)
    return replace(checkpoint, **settings)
