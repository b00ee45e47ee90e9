"""Write the tables of kazuto1011/deeplab-pytorch: python tests/parity/make_kazuto1011.py FOLDER COMMIT [live]

FOLDER holds that project's code. Run by hand; the tests read the tables. "live" compares at more sizes instead, and
prints the largest differences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from seeded import live, write_table
from torch import nn

RESNET50, RESNET101 = [3, 4, 6, 3], [3, 4, 23, 3]
SIZES = [(65, 65), (97, 129)]
LIVE = [(65, 65), (64, 64), (97, 129), (129, 193), (321, 321), (513, 513)]


def models() -> Iterator[tuple[str, nn.Module, dict[str, object]]]:
    """(name, model, options of the import)."""
    from libs.models import MSC, DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Plus

    yield "v1", DeepLabV1(7, RESNET50), {}
    yield "v2", DeepLabV2(7, RESNET50, [6, 12, 18, 24]), {}
    yield "v2_msc", MSC(DeepLabV2(7, RESNET50, [6, 12, 18, 24])), {}
    yield "v2s_msc", MSC(DeepLabV2(7, RESNET50, [3, 6, 9, 12])), {"atrous_rates": (3, 6, 9, 12)}
    yield "v2_r101_msc", MSC(DeepLabV2(7, RESNET101, [6, 12, 18, 24])), {}
    for stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        for name, kind in (("v3", DeepLabV3), ("v3plus", DeepLabV3Plus)):
            arguments = 7, RESNET50, rates, [1, 2, 4], stride
            options: dict[str, object] = {"output_stride": stride}
            if stride == 16:
                yield name, kind(*arguments), options
            yield f"{name}_os{stride}_msc", MSC(kind(*arguments)), options


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for name, model, options in models():
        model.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(1),))  # it reads BGR
        on_grid = "v3plus" not in name
        if sys.argv[3:] == ["live"]:
            live(name, model, LIVE, on_grid=on_grid, **options)
        else:
            sizes = SIZES[:1] if "r101" in name else SIZES
            write_table(f"kazuto1011_{name}", model, sizes, step=2 if on_grid else 16, commit=sys.argv[2])
