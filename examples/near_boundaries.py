"""How good a model is near the boundaries, with and without the dense CRF: v1's figure of trimaps as a table.

python examples/near_boundaries.py CHECKPOINT DATA [PICTURES]
"""

import sys

import atrous

WIDTHS = (1, 2, 5, 10, 20)  # pixels

data = atrous.open_dataset(sys.argv[2], split="val")
limit = int(sys.argv[3]) if len(sys.argv) > 3 else None
print("within pixels  " + "".join(f"{w:8d}" for w in WIDTHS) + "     all")
for name, crf in (("network", False), ("with dense CRF", True)):
    metrics = atrous.evaluate(atrous.Predictor(sys.argv[1], crf=crf), data, limit, trimap=WIDTHS)
    bands = "".join(f"{metrics.trimap_miou[w]:8.3f}" for w in WIDTHS)
    print(f"{name:15}{bands}{metrics.miou:8.3f}")
