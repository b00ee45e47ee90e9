"""Write tests/crf/pydensecrf.npz: what pydensecrf answers on the drawn inputs. Run by hand where it is installed.

    python tests/crf/make_table.py

Per case: Q (C, H, W) float32, and its largest distance from brute force, which ours must not exceed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from drawn import CASES, brute_force, picture, probabilities

TABLE = Path(__file__).with_name("pydensecrf.npz")


def run_pydensecrf(image: NDArray[Any], p: NDArray[Any], parameters: dict[str, float]) -> NDArray[Any]:
    """Q (C, H, W) float32 of pydensecrf, by the names of atrous.DenseCRF's parameters."""
    import pydensecrf.densecrf as dcrf

    chosen = {
        "iter_max": 10,
        "pos_w": 3,
        "pos_xy_std": 1,
        "bi_w": 4,
        "bi_xy_std": 67,
        "bi_rgb_std": 3,
        **parameters,
    }
    classes, height, width = p.shape
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.clip(p, 1e-5, 1)).reshape(classes, -1)))
    if chosen["pos_w"]:
        crf.addPairwiseGaussian(sxy=chosen["pos_xy_std"], compat=chosen["pos_w"])
    image = np.ascontiguousarray(image)
    crf.addPairwiseBilateral(
        sxy=chosen["bi_xy_std"], srgb=chosen["bi_rgb_std"], rgbim=image, compat=chosen["bi_w"]
    )
    return np.array(crf.inference(int(chosen["iter_max"]))).reshape(p.shape)


def main() -> None:
    """Write the table and print the distances."""
    table = {}
    for name, (height, width, classes, parameters) in CASES.items():
        image, p = picture(height, width), probabilities(classes, height, width)
        q = run_pydensecrf(image, p, parameters)
        error = np.abs(q - brute_force(image, p, parameters)).max()
        table[name], table[f"{name}/error"] = q, error
        print(f"{name:16s} largest distance from brute force {error:.4f}")
    np.savez_compressed(TABLE, **table)


if __name__ == "__main__":
    main()
