"""The loops of `upsampling` and `score_maps`. Arrays come flat (`compiled_loop.Loop`)."""

from __future__ import annotations

import numpy as np

from atrous.kernels.simd import (
    row_add,
    row_exp,
    row_fma,
    row_load,
    row_max,
    row_scale,
    row_store,
    row_sum,
    row_top,
    row_zero,
    scratch,
)

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


def score_rows(  # type: ignore[no-untyped-def]
    lo, hi, corners, shape, lanes, above, below, down, before, behind, right, softmax, scores, size
):
    """Rows lo..hi of scores (H, W, C), size: bilinear between `corners`, with `softmax` over C.

    corners: (h, w, P), shape, where P >= C is a whole number of vectors; what is behind C never wins. Row y lies
    between grid rows above[y] and below[y], at the share down[y]; before, behind and right: the same for columns.
    """
    _, grid_width, padded = shape
    _, width, classes = size
    block = 8 * len(lanes)
    left, other = scratch(np.float32, padded), scratch(np.float32, padded)
    values = scratch(np.float32, padded)
    for y in range(lo, hi):
        first, second = above[y] * grid_width, below[y] * grid_width
        cell = -1
        for x in range(width):
            if before[x] != cell:  # down the two columns that the pixels of this cell lie between
                cell = before[x]
                for k in range(0, padded, block):
                    for column, target in ((cell, left), (behind[x], other)):
                        high = row_load(lanes, corners, (first + column) * padded + k)
                        low = row_load(lanes, corners, (second + column) * padded + k)
                        row_store(target, k, row_fma(down[y], low, row_scale(np.float32(1) - down[y], high)))
            at = (y * width + x) * classes
            most = row_load(lanes, left, 0)
            for k in range(0, padded, block):
                value = row_scale(np.float32(1) - right[x], row_load(lanes, left, k))
                value = row_fma(right[x], row_load(lanes, other, k), value)
                row_store(values, k, value)
                most = value if k == 0 else row_max(most, value)
            if softmax:
                top, total = row_top(most), row_zero(lanes)
                for k in range(0, padded, block):
                    value = row_exp(row_load(lanes, values, k), top)
                    row_store(values, k, value)
                    total = row_add(total, value)
                share = np.float32(1) / row_sum(total)
                for k in range(0, padded, block):
                    row_store(values, k, row_scale(share, row_load(lanes, values, k)))
            for k in range(classes):
                scores[at + k] = values[k]


def add_rows(lo, hi, scores, strides, lanes, above, below, down, before, behind, right, total, size):  # type: ignore[no-untyped-def]
    """To rows lo..hi of N * H rows of `total` (N, H, W, C), size, add what is bilinear between pixels of `scores`.

    scores: (N, h, w, C), strides of N and h. The row and column tables: as in `score_rows`.
    """
    height, width, classes = size
    block = 8 * len(lanes)
    whole = classes // block * block
    for line in range(lo, hi):
        y = line % height
        picture = line // height * strides[0]
        first, second = picture + above[y] * strides[1], picture + below[y] * strides[1]
        up = np.float32(1) - down[y]
        for x in range(width):
            a, b = first + before[x] * classes, first + behind[x] * classes
            c, d = second + before[x] * classes, second + behind[x] * classes
            left = np.float32(1) - right[x]
            at = (line * width + x) * classes
            for k in range(0, whole, block):
                high = row_fma(
                    right[x], row_load(lanes, scores, b + k), row_scale(left, row_load(lanes, scores, a + k))
                )
                low = row_fma(
                    right[x], row_load(lanes, scores, d + k), row_scale(left, row_load(lanes, scores, c + k))
                )
                value = row_fma(down[y], low, row_scale(up, high))
                row_store(total, at + k, row_add(row_load(lanes, total, at + k), value))
            for k in range(whole, classes):
                high_one = scores[a + k] * left + scores[b + k] * right[x]
                low_one = scores[c + k] * left + scores[d + k] * right[x]
                total[at + k] += high_one * up + low_one * down[y]


def highest_pixels(lo, hi, scores, classes, lanes, labels):  # type: ignore[no-untyped-def]
    """For pixels lo..hi of scores (N, C) the first class of the highest score."""
    block = 8 * len(lanes)
    whole = classes // block * block
    for pixel in range(lo, hi):
        base = pixel * classes
        best = scores[base]
        if whole:
            most = row_load(lanes, scores, base)
            for k in range(block, whole, block):
                most = row_max(most, row_load(lanes, scores, base + k))
            best = row_top(most)
        for k in range(whole, classes):
            best = max(best, scores[base + k])
        label = 0
        while scores[base + label] < best:
            label += 1
        labels[pixel] = label
