"""Write the tables of fyu/drn and Cadene's Xception: python tests/parity/make_backbones.py DRN COMMIT CADENE COMMIT

DRN and CADENE are folders with those projects' code (drn.py and segment.py; pretrainedmodels). Run by hand; the tests
read the tables: features, and of DRNSeg the logits before they are enlarged.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from seeded import write_table
from torch import nn

DRNS = ["drn_c_26", "drn_d_22", "drn_d_54"]
SEGMENTATION = ["drn_c_26", "drn_d_22"]


def features(name: str) -> nn.Module:
    """A classifier of fyu/drn, cut before its pooling."""
    import drn

    model: Any = getattr(drn, name)()
    model.forward = nn.Sequential(*list(model.children())[:-2]).forward
    return model.eval()


def segmentation(name: str, classes: int = 19) -> nn.Module:
    """fyu/drn's DRNSeg. Its file is from before `async` became a word of the language."""
    import drn

    found: dict[str, Any] = {"__name__": "segment"}
    text = (Path(drn.__file__).parent / "segment.py").read_text(encoding="utf-8")
    exec(text.replace("async=", "non_blocking="), found)
    model: Any = found["DRNSeg"](name, classes, pretrained=False)
    base, seg = model.base, model.seg
    model.forward = lambda x: seg(base(x))
    return model.eval()


def xception() -> nn.Module:
    """Cadene's, with the ReLU that stands before its pooling."""
    from xception import xception as build

    model: Any = build(pretrained=None)
    model.forward = lambda x: model.features(x).relu()
    return model.eval()


if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], f"{sys.argv[3]}/pretrainedmodels/models"]
    for name in DRNS:
        write_table(f"drn_{name}", features(name), [(49, 65)], step=4, commit=sys.argv[2])
    for name in SEGMENTATION:
        write_table(f"drn_seg_{name}", segmentation(name), [(65, 65), (97, 129)], step=4, commit=sys.argv[2])
    write_table("xception_cadene", xception(), [(97, 129)], step=2, commit=sys.argv[4])
