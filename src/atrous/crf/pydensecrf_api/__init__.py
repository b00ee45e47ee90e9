"""pydensecrf's interface on this package's CRF: change the import and keep the script.

    import pydensecrf.densecrf as dcrf            ->  from atrous.crf import pydensecrf_api as dcrf
    from pydensecrf.utils import unary_from_...   ->  from atrous.crf.pydensecrf_api.utils import unary_from_...

Names, argument order, shapes and signs are pydensecrf's, and differ from the rest of `atrous.crf` in this: a vector or
matrix `compat` is an energy (negative attracts), while a number is Potts (positive attracts).
"""

from __future__ import annotations

from atrous.crf.pydensecrf_api import utils as utils
from atrous.crf.pydensecrf_api.densecrf import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    ConstUnary,
    DenseCRF,
    DenseCRF2D,
    LogisticUnary,
)

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "LogisticUnary",
    "utils",
]
