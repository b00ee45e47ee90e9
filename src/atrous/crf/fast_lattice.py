"""The permutohedral lattice as compiled CPU code: the same lattice as `lattice.build_lattice`, built faster.

What differs is only the order of the vertices: by first touch, so that points that are near in memory touch rows
that are near in memory. Each chunk of points numbers its vertices by itself, in a table that stays in a core's cache;
only the names that are new to a chunk meet in the table of all. Each axis of the blur is stored as chains of
neighbouring vertices: a chain is blurred in place, every row read once and written once, and a vertex without
neighbours is not touched at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.crf.fast import Unsuitable
from atrous.crf.lattice import embedding_scale, mixed_radix
from atrous.kernels.jit import Crew, compiled

Array = NDArray[Any]
CHUNK = 4096  # points that number their vertices together: a tile of `mean_field.tile_order`
_HASH = 0x9E3779B97F4A7C15  # 2^64 / golden ratio (Knuth's multiplicative hashing)
_DIRECT = 8  # names may be this many times as many as entries, to have a slot each


@compiled
def embed(lo, hi, features, order, scale, rem0, rank, barycentric):  # type: ignore[no-untyped-def]
    """`lattice.embed`, point by point: fills rem0, rank and barycentric, each (N, d+1); row i is point order[i].

    Returns the smallest and the largest rem0 of the points lo..hi, (2, d+1).
    """
    d = features.shape[0]
    f32 = np.float32
    down, up = f32(1.0 / (d + 1)), f32(d + 1)
    elevated = np.empty(d + 1, np.float32)
    near = np.empty(d + 1, np.float32)
    rest = np.empty(d + 1, np.float32)
    weight = np.empty(d + 2, np.float32)
    place = np.empty(d + 1, np.int64)
    extremes = np.empty((2, d + 1), np.int64)
    for j in range(d + 1):
        extremes[0, j], extremes[1, j] = 2**31, -(2**31)
    for i in range(lo, hi):
        total = f32(0)
        for j in range(d, 0, -1):
            scaled = features[j - 1, order[i]] * scale[j - 1]
            elevated[j] = total - scaled * f32(j)
            total = total + scaled
        elevated[0] = total
        off = 0
        for j in range(d + 1):
            rounded = np.rint(elevated[j] * down)
            near[j] = rounded * up
            rest[j] = elevated[j] - near[j]
            place[j] = 0
            off += np.int64(rounded)
        for j in range(d):
            for k in range(j + 1, d + 1):
                if rest[j] < rest[k]:
                    place[j] += 1
                else:
                    place[k] += 1
        for k in range(d + 2):
            weight[k] = f32(0)
        for j in range(d + 1):
            r = place[j] + off
            if r < 0:
                r += d + 1
                near[j] += up
            elif r > d:
                r -= d + 1
                near[j] -= up
            v = (elevated[j] - near[j]) * down
            weight[d - r] += v
            weight[d - r + 1] -= v
            rem0[i, j] = np.int32(near[j])
            extremes[0, j] = min(extremes[0, j], rem0[i, j])
            extremes[1, j] = max(extremes[1, j], rem0[i, j])
            rank[i, j] = r
        weight[0] += f32(1) + weight[d + 1]
        for k in range(d + 1):
            barycentric[i, k] = max(weight[k], f32(0))  # rounding leaves some at -1e-8
    return extremes


@compiled
def number_chunk(lo, hi, rem0, rank, origin, stride, factor, vertices):  # type: ignore[no-untyped-def]
    """Number the vertices of the points lo..hi by first touch, in `vertices` (N, d+1); return their packed names."""
    width = rank.shape[1]
    d = width - 1
    size, shift = np.int64(1), np.uint64(64)
    while size < 2 * (hi - lo) * width:
        size *= 2
        shift -= np.uint64(1)
    slots = np.full(size, -1, np.int32)
    names = np.empty((hi - lo) * width, np.int64)
    all_steps = np.int64(0)
    for j in range(d):
        all_steps += stride[j]
    axis = np.empty(width, np.int64)
    m = np.int32(0)
    for i in range(lo, hi):
        name = np.int64(0)
        for j in range(d):
            name += (rem0[i, j] - origin[j]) * stride[j]
        for j in range(width):
            axis[rank[i, j]] = j
        for k in range(width):
            if k > 0:
                name += all_steps - width * stride[axis[width - k]]
            slot = np.int64((np.uint64(name) * factor) >> shift)
            while slots[slot] >= 0 and names[slots[slot]] != name:
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot] = m
                names[m] = name
                m += np.int32(1)
            vertices[i, k] = slots[slot]
    return names[:m].copy()


@compiled
def merge_names(found, slots, factor, shift, names, m):  # type: ignore[no-untyped-def]
    """Number the names that a chunk `found`: those known keep their numbers, the others get the next, from m on.

    slots: table of numbers, -1 where free, a power of two or as large as the largest name. names: (M,), filled.
    Returns the chunk's numbers, and the next one.
    """
    number = np.empty(len(found), np.int32)
    for i in range(len(found)):
        slot = np.int64((np.uint64(found[i]) * factor) >> shift)
        while slots[slot] >= 0 and names[slots[slot]] != found[i]:
            slot = (slot + 1) & (len(slots) - 1)
        if slots[slot] < 0:
            slots[slot] = m
            names[m] = found[i]
            m += 1
        number[i] = slots[slot]
    return number, m


@compiled
def renumber(number, vertices):  # type: ignore[no-untyped-def]
    """vertices <- number[vertices]."""
    for i in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            vertices[i, k] = number[vertices[i, k]]


@compiled
def link_chains(lo, hi, names, slots, factor, shift, stride, order, behind, length):  # type: ignore[no-untyped-def]
    """Find, for each axis j, the chains of neighbours: order[j, :length[j]] lists vertices chain after chain.

    behind[j] is 0 where a chain starts and 1 elsewhere. A vertex alone on its axis is left out.
    """
    width, m = order.shape[0], len(names)
    total = np.int64(0)
    for j in range(width - 1):
        total += stride[j]
    for j in range(lo, hi):
        step = width * stride[j] - total
        ahead = np.empty(m, np.int32)
        first = np.ones(m, np.bool_)
        for v in range(m):
            wanted = names[v] + step
            slot = np.int64((np.uint64(wanted) * factor) >> shift)
            while slots[slot] >= 0 and names[slots[slot]] != wanted:
                slot = (slot + 1) & (len(slots) - 1)
            ahead[v] = slots[slot]
            if slots[slot] >= 0:
                first[slots[slot]] = False
        filled = 0
        for i in range(m):
            if first[i] and ahead[i] >= 0:
                v = np.int32(i)
                while v >= 0:
                    order[j, filled] = v
                    behind[j, filled] = np.float32(v != i)
                    filled += 1
                    v = ahead[v]
        length[j] = filled


class FastLattice:
    """A lattice of (d, N) float32 features, of points in `order`: row i of what follows is point order[i].

    vertices: (N, d+1) int32; barycentric: (N, d+1) float32, >= 0; num_vertices: M;
    chains: per axis, its chains of vertices, (L,) int32, and 0 where one starts, 1 elsewhere, (L,) float32.
    """

    def __init__(self, features: Array, order: Array, crew: Crew) -> None:
        (d, n), width = features.shape, features.shape[0] + 1
        rem0, rank = np.empty((n, width), np.int32), np.empty((n, width), np.int8)
        self.barycentric = np.empty((n, width), np.float32)
        scale = np.array(embedding_scale(d), np.float32)
        extremes = np.array(crew.map(embed, n, CHUNK, features, order, scale, rem0, rank, self.barycentric))
        low, high = extremes[:, 0].min(0), extremes[:, 1].max(0)
        strides = mixed_radix((high - low).tolist(), d)
        if strides is None:
            raise Unsuitable("vertex names do not fit in 62 bits")
        stride, origin = np.array(strides, np.int64), low - 2 * width  # so that no name is negative

        self.vertices = np.empty((n, width), np.int32)
        hashing = np.uint64(_HASH)
        found = crew.map(number_chunk, n, CHUNK, rem0, rank, origin, stride, hashing, self.vertices)
        del rem0, rank
        entries = sum(map(len, found))
        span = strides[d - 1] * int(high[d - 1] - low[d - 1] + 1 + 4 * width)
        if span <= _DIRECT * entries:  # features of position alone: every name has a slot of its own
            table = (np.full(span, -1, np.int32), np.uint64(1), np.uint64(0))
        else:
            bits = (2 * entries).bit_length()
            table = (np.full(2**bits, -1, np.int32), hashing, np.uint64(64 - bits))
        names, m = np.empty(entries, np.int64), 0
        for t, chunk in enumerate(found):
            found[t], m = merge_names(chunk, *table, names, m)
        crew.map(lambda lo, hi: renumber(found[lo // CHUNK], self.vertices[lo:hi]), n, CHUNK)
        self.num_vertices = m

        chain, behind = np.empty((width, m), np.int32), np.empty((width, m), np.float32)
        length = np.zeros(width, np.int64)
        crew.run(link_chains, width, names[:m], *table, stride, chain, behind, length)
        self.chains = [(chain[j, :end].copy(), behind[j, :end].copy()) for j, end in enumerate(length)]

    @property
    def dimension(self) -> int:
        """d, the number of features of a point."""
        return self.vertices.shape[1] - 1
