"""The loop of `atrous_depthwise`. Arrays come flat (`compiled_loop.Loop`)."""

from __future__ import annotations

from atrous.kernels.simd import row_add, row_load, row_multiply, row_store


def depthwise_rows(lo, hi, x, shape, weight, bias, side, rate, lanes, y):  # type: ignore[no-untyped-def]
    """Rows lo..hi of N * H rows. x, y: (N, H, W, C), shape. weight: (side, side, C), side odd; bias: (C,)."""
    _, height, width, channels = shape
    block = 8 * len(lanes)
    for line in range(lo, hi):
        row = line % height
        for column in range(width):
            for c in range(0, channels, block):
                total = row_load(lanes, bias, c)
                for i in range(side):
                    above = (i - side // 2) * rate
                    if 0 <= row + above < height:
                        for j in range(side):
                            there = column + (j - side // 2) * rate
                            if 0 <= there < width:
                                pixels = row_load(lanes, x, ((line + above) * width + there) * channels + c)
                                weights = row_load(lanes, weight, (side * i + j) * channels + c)
                                total = row_add(total, row_multiply(pixels, weights))
                row_store(y, (line * width + column) * channels + c, total)
