"""Segment a picture that is a numpy array, and count what is in it.

python examples/predict_array.py PICTURE [CHECKPOINT]
"""

import sys

import numpy as np
from PIL import Image

import atrous

picture = np.asarray(Image.open(sys.argv[1]).convert("RGB"))  # (H, W, 3) uint8
predictor = atrous.Predictor(*sys.argv[2:3])  # without a checkpoint: the model in the package
result = predictor.predict(picture, probabilities=True)
for number in np.unique(result.labels):
    here = result.labels == number
    sure = result.probabilities[number][here].mean()
    print(f"{result.names[number]:15} {here.mean():6.1%} of the picture, mean probability {sure:.2f}")
