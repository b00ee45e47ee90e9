"""The DeepLab family for semantic segmentation: v1 with dense CRF, v2, PSPNet, v3, v3+.

The names below load what they need when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from atrous.version import __version__ as __version__

if TYPE_CHECKING:
    from atrous import hub as hub
    from atrous.checkpoint import load as load
    from atrous.checkpoint import save as save
    from atrous.crf import DenseCRF as DenseCRF
    from atrous.data import open_dataset as open_dataset
    from atrous.errors import InputError as InputError
    from atrous.evaluation import evaluate as evaluate
    from atrous.importers import import_checkpoint as import_checkpoint
    from atrous.metrics import Metrics as Metrics
    from atrous.models import create_model as create_model
    from atrous.predict import Predictor as Predictor
    from atrous.predict import Segmentation as Segmentation

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


if not TYPE_CHECKING:  # a type checker that saw this function would believe in every name

    def __getattr__(name: str) -> object:
        if name == "hub":
            return importlib.import_module("atrous.hub")
        if name not in _HOMES:
            raise AttributeError(f"module 'atrous' has no attribute {name!r}")
        return getattr(importlib.import_module(f"atrous.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
