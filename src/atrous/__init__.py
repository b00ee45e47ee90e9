"""The DeepLab family for semantic segmentation: v1 with dense CRF, v2, PSPNet, v3, v3+.

The names below load what they need when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from atrous.version import __version__ as __version__

_HOMES = {
    "create_model": "models",
    "load": "checkpoint",
    "save": "checkpoint",
    "import_checkpoint": "importers",
    "Predictor": "predict",
    "Segmentation": "predict",
    "DenseCRF": "crf",
    "evaluate": "evaluation",
    "Metrics": "metrics",
    "open_dataset": "data",
    "InputError": "errors",
}

__all__ = ["__version__", "hub", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "hub":
        return importlib.import_module("atrous.hub")
    if name not in _HOMES:
        raise AttributeError(f"module 'atrous' has no attribute {name!r}")
    return getattr(importlib.import_module(f"atrous.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
