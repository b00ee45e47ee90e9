"""The loop of `upsampling`. Arrays come flat (`compiled_loop.Loop`)."""

from __future__ import annotations

import numpy as np

from atrous.crf.simd import scratch

ROUNDING = np.float32(4e-6)  # of a bilinear sum, relative to its largest corner


def label_cells(lo, hi, corners, shape, row_cells, column_cells, below, down, behind, right, labels, line):  # type: ignore[no-untyped-def]
    """Label the pixels of the cells in grid rows lo..hi.

    corners: (h, w, C), shape. row_cells: (h+1,), the pixel rows row_cells[t]..row_cells[t+1] lie below grid row t,
    between it and row `below`, at the share `down`; column_cells, behind and right: the same for columns.
    labels: (H, line).
    """
    _, width, classes = shape
    high, lows = scratch(np.float32, classes), scratch(np.float32, classes)
    alive = scratch(np.int64, classes)
    for t in range(lo, hi):
        first, last = row_cells[t], row_cells[t + 1]
        if first == last:
            continue
        for s in range(width):
            start, stop = column_cells[s], column_cells[s + 1]
            if start == stop:
                continue
            a, b = (t * width + s) * classes, (t * width + behind[start]) * classes
            c = (below[first] * width + s) * classes
            d = (below[first] * width + behind[start]) * classes
            for k in range(classes):
                high[k] = max(max(corners[a + k], corners[b + k]), max(corners[c + k], corners[d + k]))
                lows[k] = min(min(corners[a + k], corners[b + k]), min(corners[c + k], corners[d + k]))
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
                        labels[y * line + x] = alive[0]
                continue
            for y in range(first, last):
                for x in range(start, stop):
                    best, label = np.float32(-np.inf), 0
                    for j in range(count):
                        k = alive[j]
                        top = corners[a + k] * (np.float32(1) - right[x]) + corners[b + k] * right[x]
                        bottom = corners[c + k] * (np.float32(1) - right[x]) + corners[d + k] * right[x]
                        score = top * (np.float32(1) - down[y]) + bottom * down[y]
                        if score > best:
                            best, label = score, k
                    labels[y * line + x] = label
