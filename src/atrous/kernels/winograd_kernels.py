"""The loops of `winograd`: pixels to the points of a tile, and back. Arrays come flat (`compiled_loop.Loop`)."""

from __future__ import annotations

import numpy as np

from atrous.kernels.jit import compiled
from atrous.kernels.simd import row_fma, row_load, row_store, row_zero, scratch


def to_points(lo, hi, x, shape, rate, grid, first, into, n, lanes, points):  # type: ignore[no-untyped-def]
    """Tiles first+lo .. first+hi of the map to their points: `into` @ tile @ `into`.T for every channel.

    x: (N, H, W, C), shape. grid: tiles (rows, columns) of each of the rate * rate grids of every rate-th pixel.
    into: (n, n). points: (tiles, n * n, C).
    """
    _, height, width, channels = shape
    block = 8 * len(lanes)
    tile = scratch(np.float32, n * n * block)
    half = scratch(np.float32, n * n * block)
    for t in range(lo, hi):
        picture, top, left = _place(first + t, rate, grid, n - 2)
        top, left = top - rate, left - rate
        for c in range(0, channels, block):
            for i in range(n):
                y = top + i * rate
                for j in range(n):
                    at = left + j * rate
                    if 0 <= y < height and 0 <= at < width:
                        source = ((picture * height + y) * width + at) * channels + c
                        row_store(tile, (i * n + j) * block, row_load(lanes, x, source))
                    else:
                        row_store(tile, (i * n + j) * block, row_zero(lanes))
            _from_the_left(into, n, n, tile, lanes, half)
            for i in range(n):
                for j in range(n):
                    total = row_zero(lanes)
                    for k in range(n):
                        total = row_fma(into[j * n + k], row_load(lanes, half, (i * n + k) * block), total)
                    row_store(points, (t * n * n + i * n + j) * channels + c, total)


def from_points(lo, hi, points, back, sides, bias, rate, grid, first, lanes, y, shape):  # type: ignore[no-untyped-def]
    """The reverse, with a bias: `back` @ points @ `back`.T + bias, to the pixels of the map that exist.

    points: (tiles, n * n, D). back: sides (m, n). bias: (D,). y: (N, H, W, D), shape.
    """
    _, height, width, channels = shape
    m, n = sides
    block = 8 * len(lanes)
    tile = scratch(np.float32, n * n * block)
    half = scratch(np.float32, m * n * block)
    for t in range(lo, hi):
        picture, top, left = _place(first + t, rate, grid, m)
        if top >= height or left >= width:
            continue
        for c in range(0, channels, block):
            for k in range(n * n):
                row_store(tile, k * block, row_load(lanes, points, (t * n * n + k) * channels + c))
            _from_the_left(back, m, n, tile, lanes, half)
            shift = row_load(lanes, bias, c)
            for i in range(m):
                row = top + i * rate
                if row >= height:
                    break
                for j in range(m):
                    column = left + j * rate
                    if column >= width:
                        break
                    total = shift
                    for k in range(n):
                        total = row_fma(back[j * n + k], row_load(lanes, half, (i * n + k) * block), total)
                    target = ((picture * height + row) * width + column) * channels + c
                    row_store(y, target, total)


@compiled
def _place(t, rate, grid, m):  # type: ignore[no-untyped-def]
    """Picture, row and column of the first pixel of tile t; neighbours in a row of pixels follow each other."""
    rows, columns = grid
    t, across = divmod(t, rate)
    t, column = divmod(t, columns)
    t, down = divmod(t, rate)
    picture, row = divmod(t, rows)
    return picture, row * m * rate + down, column * m * rate + across


@compiled
def _from_the_left(matrix, m, n, tile, lanes, product):  # type: ignore[no-untyped-def]
    """matrix (m, n) @ tile (n, n) = product (m, n), each number of tile and product a row of channels."""
    block = 8 * len(lanes)
    for i in range(m):
        for j in range(n):
            total = row_zero(lanes)
            for k in range(n):
                total = row_fma(matrix[i * n + k], row_load(lanes, tile, (k * n + j) * block), total)
            row_store(product, (i * n + j) * block, total)
