"""Write the tables of hszhao/semseg: python tests/parity/make_semseg.py FOLDER COMMIT [live]

FOLDER holds that project's code. Run by hand; the tests read the tables. "live" compares at more sizes instead, and
prints the largest differences.
"""

from __future__ import annotations

import sys

from seeded import live, write_table
from torch import nn

SIZES = [(65, 65), (97, 129)]  # it takes 8 n + 1 only
LIVE = [*SIZES, (129, 193), (473, 473), (513, 513)]


def build(layers: int) -> nn.Module:
    from model.pspnet import PSPNet

    return PSPNet(layers=layers, classes=7, zoom_factor=8, pretrained=False)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for layers in (50, 101):
        if sys.argv[3:] == ["live"]:
            live(f"pspnet{layers}", build(layers), LIVE)
        else:
            write_table(
                f"semseg_pspnet{layers}", build(layers), SIZES[: 2 if layers == 50 else 1], commit=sys.argv[2]
            )
