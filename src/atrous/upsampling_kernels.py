"""The compiled part of `upsampling`."""

from __future__ import annotations

import numpy as np

from atrous.crf.jit import compiled

ROUNDING = np.float32(4e-6)  # of a bilinear sum, relative to its largest corner


@compiled
def label_cells(lo, hi, corners, row_cells, column_cells, below, down, behind, right, labels):  # type: ignore[no-untyped-def]
    """Label the pixels of the cells in grid rows lo..hi.

    corners: (h, w, C). row_cells: (h+1,), the pixel rows row_cells[t]..row_cells[t+1] lie below grid row t, between it
    and row `below`, at the share `down`; column_cells, behind and right: the same for columns.
    """
    width, classes = corners.shape[1], corners.shape[2]
    high, lows = np.empty(classes, np.float32), np.empty(classes, np.float32)
    alive = np.empty(classes, np.int64)
    for t in range(lo, hi):
        first, last = row_cells[t], row_cells[t + 1]
        if first == last:
            continue
        for s in range(width):
            start, stop = column_cells[s], column_cells[s + 1]
            if start == stop:
                continue
            a, b = corners[t, s], corners[t, behind[start]]
            c, d = corners[below[first], s], corners[below[first], behind[start]]
            for k in range(classes):
                high[k] = max(max(a[k], b[k]), max(c[k], d[k]))
                lows[k] = min(min(a[k], b[k]), min(c[k], d[k]))
            bar = lows[0]
            for k in range(1, classes):
                bar = max(bar, lows[k])
            bar -= ROUNDING * max(abs(bar), np.float32(1))
            count = 0
            for k in range(classes):
                if high[k] >= bar:
                    alive[count] = k
                    count += 1
            if count == 1:
                for y in range(first, last):
                    for x in range(start, stop):
                        labels[y, x] = alive[0]
                continue
            for y in range(first, last):
                for x in range(start, stop):
                    best, label = np.float32(-np.inf), 0
                    for j in range(count):
                        k = alive[j]
                        top = a[k] * (np.float32(1) - right[x]) + b[k] * right[x]
                        bottom = c[k] * (np.float32(1) - right[x]) + d[k] * right[x]
                        score = top * (np.float32(1) - down[y]) + bottom * down[y]
                        if score > best:
                            best, label = score, k
                    labels[y, x] = label
