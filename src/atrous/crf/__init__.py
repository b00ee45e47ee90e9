"""Dense CRF: mean-field inference with Gaussian kernels on the permutohedral lattice.

`DenseCRF` is what DeepLab v1 and v2 use; `MeanField` and `Pairwise` are the general model under it; `CRFLayer` trains;
`pydensecrf_api` is pydensecrf's interface on the same code.
"""

from __future__ import annotations

from atrous.crf.lattice import Lattice, build_lattice
from atrous.crf.layer import CRFHead, CRFLayer
from atrous.crf.mean_field import DenseCRF, bilateral_features, position_features
from atrous.crf.model import MeanField, Pairwise, map_labels
from atrous.crf.unary import unary_from_labels, unary_from_logits, unary_from_probabilities

__all__ = [
    "CRFHead",
    "CRFLayer",
    "DenseCRF",
    "Lattice",
    "MeanField",
    "Pairwise",
    "bilateral_features",
    "build_lattice",
    "map_labels",
    "position_features",
    "unary_from_labels",
    "unary_from_logits",
    "unary_from_probabilities",
]
