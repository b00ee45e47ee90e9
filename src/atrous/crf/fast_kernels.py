"""The inner loops of mean-field inference, compiled: splat, blur, slice and softmax over rows of classes.

A row holds the classes of one point or vertex: `blocks` registers' widths of lanes (see `simd`). Q is stored as
fixed-point uint16: ONE is 1.0. It is rounded up or down by thresholds that differ from point to point, so that errors
cancel in a vertex, which sums many points that are alike. A lattice row is kept in float32, as a mean of Q, divided by
the weight that reached its vertex: a vertex stands for many points, and inference near a tie multiplies its error.
"""

from __future__ import annotations

import numpy as np

from atrous.kernels.jit import compiled
from atrous.kernels.simd import (
    EXP_FLOOR,
    row_add,
    row_dither,
    row_exp,
    row_fma,
    row_load,
    row_max,
    row_prefetch,
    row_scale,
    row_store,
    row_sum,
    row_top,
    row_zero,
)

ONE = 65000.0  # a little under 2^16, so that a mean of ones may round upwards
BLOCK = 512  # points
AHEAD = 12  # rows to prefetch ahead: about the time that memory takes
_GOLDEN = np.int64(2654435769)  # 2^32 / golden ratio
_LOG2E = np.float32(1.4426950408889634)


@compiled
def _threshold(i):  # type: ignore[no-untyped-def]
    """Numbers that fill 0..1 evenly, however far one counts: the fractions of i times the golden ratio."""
    return np.float32(((np.int64(i) * _GOLDEN) & np.int64(2**32 - 1)) >> np.int64(8)) * np.float32(2.0**-24)


@compiled
def splat(lo, hi, lanes, blocks, start, point, weight, q, offset, table):  # type: ignore[no-untyped-def]
    """table[offset + v] = sum of weight[e] * q[point[e]] over e in start[v]..start[v+1]."""
    width = 8 * len(lanes)
    stride = width * blocks
    for v in range(lo, hi):
        for b in range(blocks):
            column = b * width
            total = row_zero(lanes)
            for e in range(start[v], start[v + 1]):
                total = row_fma(weight[e], row_load(lanes, q, np.int64(point[e]) * stride + column), total)
            row_store(table, (offset + v) * stride + column, total)


@compiled
def blur(lo, hi, lanes, blocks, order, behind, ahead, offset, table):  # type: ignore[no-untyped-def]
    """Blur along one axis, in place: each row becomes the weighted mean of itself and its chain's neighbours.

    `offset` is the table's row of the lattice's first vertex.
    """
    width = 8 * len(lanes)
    stride = width * blocks
    length = len(order)
    # chains must not be cut: begin and end where one begins
    while lo < length and behind[lo] != 0:
        lo += 1
    while hi < length and behind[hi] != 0:
        hi += 1
    for b in range(blocks):
        column = offset * stride + b * width
        before = row_zero(lanes)
        at = np.int64(0)
        own = before
        if lo < hi:
            at = np.int64(order[lo]) * stride + column
            own = row_load(lanes, table, at)
        for e in range(lo, hi):
            if e + AHEAD < hi:
                row_prefetch(lanes, table, np.int64(order[e + AHEAD]) * stride + column)
            following = order[e + 1] if e + 1 < hi else order[e]
            at_next = np.int64(following) * stride + column
            after = row_load(lanes, table, at_next)
            x, y = behind[e], ahead[e]
            new = row_fma(y, after, row_fma(x, before, row_scale(np.float32(1) - x - y, own)))
            row_store(table, at, new)
            before, own, at = own, after, at_next


@compiled
def _exp(x):  # type: ignore[no-untyped-def]
    """e^max(x, EXP_FLOOR) for x <= 80, in a form that compilers turn into vector code; as `simd.row_exp`."""
    power = max(x, np.float32(EXP_FLOOR)) * _LOG2E
    whole = np.rint(power)
    f = power - whole
    value = np.float32(1.5403530e-4)
    value = value * f + np.float32(1.3333558e-3)
    value = value * f + np.float32(9.6181291e-3)
    value = value * f + np.float32(5.5504109e-2)
    value = value * f + np.float32(2.4022651e-1)
    value = value * f + np.float32(6.9314718e-1)
    value = value * f + np.float32(1.0)
    return value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def update(  # type: ignore[no-untyped-def]
    lo, hi, lanes, blocks, logits, rest, index, weight, table, q, alive, order, result, norm, begin, matrices
):
    """Slice all kernels, add the unary logits, softmax: Q <- softmax(logits + sum_e weight * table[index]).

    Row i is point order[i]. rest: (N,) mass of the classes left out, on the scale where the largest unary logit is 0.
    begin, matrices: empty for Potts terms; otherwise kernel k has the entries begin[k]..begin[k+1] of (K+1,), and its
    message is multiplied by matrices[k * C + c] in row c, (K * C * stride,): -mu[:, c].
    The last time, `result` is (C, N), not empty: Q goes there as float32, and norm (N,) takes what the classes left out
    are to be multiplied by; where norm is empty, the logits go there instead.

    One function, however long: numba counts references to arrays at every call, and there is one for every point.
    """
    width = 8 * len(lanes)
    stride = width * blocks
    entries = index.shape[1]
    kernels, classes = len(begin) - 1, len(alive)
    scratch, message = np.empty(stride, np.float32), np.empty(stride, np.float32)
    last, raw = len(result) > 0, len(norm) == 0
    for i in range(lo, hi):
        tops = row_load(lanes, logits, i * stride)
        if kernels < 0:
            for b in range(blocks):
                column = b * width
                total = row_load(lanes, logits, i * stride + column)
                for e in range(entries):
                    total = row_fma(
                        weight[i, e], row_load(lanes, table, np.int64(index[i, e]) * stride + column), total
                    )
                row_store(scratch, column, total)
                tops = row_max(tops, total) if b > 0 else total
        else:
            for b in range(blocks):
                row_store(scratch, b * width, row_load(lanes, logits, i * stride + b * width))
            for k in range(kernels):
                for b in range(blocks):
                    total = row_zero(lanes)
                    for e in range(begin[k], begin[k + 1]):
                        at_row = np.int64(index[i, e]) * stride + b * width
                        total = row_fma(weight[i, e], row_load(lanes, table, at_row), total)
                    row_store(message, b * width, total)
                for b in range(blocks):
                    total = row_load(lanes, scratch, b * width)
                    for c in range(classes):
                        at_row = (k * classes + c) * stride + b * width
                        total = row_fma(message[c], row_load(lanes, matrices, at_row), total)
                    row_store(scratch, b * width, total)
            tops = row_load(lanes, scratch, 0)
            for b in range(1, blocks):
                tops = row_max(tops, row_load(lanes, scratch, b * width))
        top = row_top(tops)
        at = order[i]
        if last and raw:
            for c in range(classes):
                result[alive[c], at] = scratch[c]
            continue
        sums = row_zero(lanes)
        for b in range(blocks):
            value = row_exp(row_load(lanes, scratch, b * width), top)
            row_store(scratch, b * width, value)
            sums = row_add(sums, value)
        total_mass = row_sum(sums)
        if rest[at] > 0:
            total_mass += rest[at] * _exp(-top)
        if last:
            for c in range(classes):
                result[alive[c], at] = scratch[c] / total_mass
            norm[at] = _exp(-top) / total_mass
        else:
            scale = np.float32(ONE) / total_mass
            for b in range(blocks):
                part = row_scale(scale, row_load(lanes, scratch, b * width))
                row_dither(q, i * stride + b * width, part, _threshold(i))


@compiled
def survey(lo, hi, unary, low, largest):  # type: ignore[no-untyped-def]
    """Fill low (N,), the smallest energy of each point, and largest (blocks, C), the largest softmax(-unary) of each
    class in each block of BLOCK points; unary (C, N). `lo` to `hi` counts blocks, as in the next two.

    Slices, whose index starts at 0, let the compiler make vector code of these loops.
    """
    classes, n = unary.shape
    for t in range(lo, hi):
        first, last = t * BLOCK, min((t + 1) * BLOCK, n)
        lowest = low[first:last]
        count = len(lowest)
        for c in range(classes):
            energy = unary[c, first:last]
            for i in range(count):
                lowest[i] = min(lowest[i], energy[i]) if c > 0 else energy[i]
        shift = np.zeros(count, np.float32)
        for c in range(classes):
            energy = unary[c, first:last]
            for i in range(count):
                shift[i] += _exp(lowest[i] - energy[i])
        for i in range(count):
            shift[i] = lowest[i] - np.log(shift[i])
        for c in range(classes):
            energy = unary[c, first:last]
            best = np.float32(-1e30)
            for i in range(count):
                best = max(best, shift[i] - energy[i])
            largest[t, c] = _exp(best)


@compiled
def add_rest(lo, hi, unary, dead, low, rest):  # type: ignore[no-untyped-def]
    """rest (N,) += the mass of the classes `dead`, on the scale where the largest class of a point has 1."""
    n = len(low)
    for t in range(lo, hi):
        first, last = t * BLOCK, min((t + 1) * BLOCK, n)
        lowest, mass = low[first:last], rest[first:last]
        for c in dead:
            energy = unary[c, first:last]
            for i in range(len(mass)):
                mass[i] += _exp(lowest[i] - energy[i])


@compiled
def fill_rest(lo, hi, dead, low, norm, result):  # type: ignore[no-untyped-def]
    """Write the classes left out: result[c] <- exp(-result[c]) * norm; result, (C, N), holds their energies."""
    n = len(low)
    for t in range(lo, hi):
        first, last = t * BLOCK, min((t + 1) * BLOCK, n)
        lowest, factor = low[first:last], norm[first:last]
        for c in dead:
            row = result[c, first:last]
            for i in range(len(row)):
                row[i] = _exp(lowest[i] - row[i]) * factor[i]


@compiled
def gather_logits(lo, hi, unary, alive, low, order, stride, logits):  # type: ignore[no-untyped-def]
    """Unary energies (C, N) -> rows of the classes `alive` as logits (N * stride,), largest 0, points in `order`."""
    for i in range(lo, hi):
        at = order[i]
        for k in range(len(alive)):
            logits[i * stride + k] = low[at] - unary[alive[k], at]
        for k in range(len(alive), stride):
            logits[i * stride + k] = np.float32(-1e30)


@compiled
def gather_rows(lo, hi, q, order, stride, rows):  # type: ignore[no-untyped-def]
    """Probabilities (C, N) -> fixed-point rows (N * stride,)."""
    for i in range(lo, hi):
        for c in range(q.shape[0]):
            rows[i * stride + c] = np.uint16(min(max(q[c, order[i]], 0.0), 1.0) * ONE + 0.5)


@compiled
def slice_weights(lo, hi, vertices, barycentric, factor, scale, total, offset, first, index, weight):  # type: ignore[no-untyped-def]
    """Fill columns first.. of index and weight, (N, E): what `update` reads of one lattice."""
    width = vertices.shape[1]
    for i in range(lo, hi):
        for k in range(width):
            v = vertices[i, k]
            index[i, first + k] = offset + v
            weight[i, first + k] = factor[i] * scale * barycentric[i, k] * total[v]


@compiled
def count_points(lo, hi, vertices, count):  # type: ignore[no-untyped-def]
    """count[v] += entries of `vertices` (N, d+1) that are v, for v in lo..hi."""
    for i in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            v = vertices[i, k]
            if lo <= v < hi:
                count[v] += 1


@compiled
def list_points(lo, hi, vertices, barycentric, start, point, weight):  # type: ignore[no-untyped-def]
    """List the points of each vertex v in lo..hi, and their barycentric weights, from entry start[v] on."""
    at = start[lo:hi].copy()
    for i in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            v = vertices[i, k]
            if lo <= v < hi:
                e = at[v - lo]
                at[v - lo] = e + 1
                point[e] = i
                weight[e] = barycentric[i, k]


@compiled
def splat_weights(lo, hi, start, point, scale, total, weight):  # type: ignore[no-untyped-def]
    """Multiply weight[e] by the scale of its point, (N,), and divide it by the total of its vertex, (M,)."""
    for v in range(lo, hi):
        inverse = np.float32(1) / total[v] if total[v] > 0 else np.float32(0)
        for e in range(start[v], start[v + 1]):
            weight[e] *= scale[point[e]] * inverse


@compiled
def splat_numbers(lo, hi, start, point, weight, values, total):  # type: ignore[no-untyped-def]
    """`splat` of one number per point: total[v] = sum of weight[e] * values[point[e]]."""
    for v in range(lo, hi):
        s = np.float32(0)
        for e in range(start[v], start[v + 1]):
            s += weight[e] * values[point[e]]
        total[v] = s


@compiled
def blur_numbers(lo, hi, order, behind, ahead, values):  # type: ignore[no-untyped-def]
    """Blur one number per vertex, (M,), in place along one axis; record the share of the new value that each
    neighbour gave, in behind and ahead, (L,): 0 at the ends of a chain, more than 0 elsewhere."""
    half, least = np.float32(0.5), np.float32(1e-30)
    length = len(order)
    while lo < length and behind[lo] != 0:  # as `blur`
        lo += 1
    while hi < length and behind[hi] != 0:
        hi += 1
    before = np.float32(0)
    for e in range(lo, hi):
        v = order[e]
        own, after = values[v], np.float32(0)
        first, last = behind[e] == 0, e + 1 == length or behind[e + 1] == 0
        if first:
            before = np.float32(0)
        if not last:
            after = values[order[e + 1]]
        new = own + half * (before + after)
        inverse = half / new if new > 0 else np.float32(0)
        values[v] = new
        behind[e] = np.float32(0) if first else max(before * inverse, least)
        ahead[e] = np.float32(0) if last else max(after * inverse, least)
        before = own


@compiled
def slice_numbers(lo, hi, vertices, barycentric, values, result):  # type: ignore[no-untyped-def]
    """Slice one number per vertex: result[i] = sum of barycentric * values[v] over the vertices v of point i."""
    for i in range(lo, hi):
        s = np.float32(0)
        for k in range(vertices.shape[1]):
            s += barycentric[i, k] * values[vertices[i, k]]
        result[i] = s
