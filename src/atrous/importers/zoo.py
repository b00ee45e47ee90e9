"""Published checkpoints by name, for `atrous pull`: where they are and the first digits of their SHA-256."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from atrous.backbones.weights import DRN, DRN_FILES
from atrous.download import download
from atrous.errors import choose

# torchvision keeps the addresses of its own; their names end in the digits
TORCHVISION = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


def names() -> list[str]:
    """What can be pulled."""
    return [*(f"torchvision/{name}" for name in TORCHVISION), *(f"drn/{name}" for name in DRN_FILES)]


def pull(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The file of a published checkpoint, in torch hub's folder (TORCH_HOME), downloaded if it is not there.

    Raises InputError for an unknown name, and without a network: it says which file to put where.
    """
    project, model = choose("checkpoint", name, names()).split("/")
    if project == "torchvision":
        from torchvision.models import get_model_weights

        url = get_model_weights(model).DEFAULT.url
    else:
        url = DRN.format(DRN_FILES[model])
    file = url.rsplit("/", 1)[-1]
    digest = file.rsplit("-", 1)[-1].split(".")[0]
    return download(url, Path(torch.hub.get_dir()) / "checkpoints" / file, digest, progress)
