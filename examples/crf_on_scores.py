"""The dense CRF on the scores of any network, saved as (C, H, W) float32 .npy; writes the labels before and after.

python examples/crf_on_scores.py PICTURE SCORES.npy [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from atrous import DenseCRF

picture = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
scores = np.load(sys.argv[2])  # probabilities; logits would need a softmax over axis 0
folder = Path(sys.argv[3] if len(sys.argv) > 3 else ".")

crf = DenseCRF(iter_max=10, pos_w=3, pos_xy_std=1, bi_w=4, bi_xy_std=67, bi_rgb_std=3)
refined = crf(picture, scores)
before, after = scores.argmax(0).astype(np.uint8), refined.argmax(0).astype(np.uint8)
Image.fromarray(before).save(folder / "before.png")
Image.fromarray(after).save(folder / "after.png")
print(f"{(before != after).mean():.2%} of the pixels have another label")
