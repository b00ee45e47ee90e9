"""The permutohedral lattice as compiled CPU code: the same lattice as `lattice.build_lattice`, built faster.

What differs is only the order of the vertices: by first touch, so that points that are near in memory touch rows
that are near in memory. Each axis of the blur is stored as chains of neighbouring vertices: a chain is blurred in
place, every row read once and written once, and a vertex without neighbours is not touched at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.crf.fast import Unsuitable
from atrous.crf.jit import Crew, compiled
from atrous.crf.lattice import embedding_scale, mixed_radix

Array = NDArray[Any]
_HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


@compiled
def embed(lo, hi, features, scale, rem0, rank, barycentric):  # type: ignore[no-untyped-def]
    """`lattice.embed`, point by point: fills rem0, rank and barycentric, each (N, d+1)."""
    d = features.shape[0]
    f32 = np.float32
    down, up = f32(1.0 / (d + 1)), f32(d + 1)
    elevated = np.empty(d + 1, np.float32)
    near = np.empty(d + 1, np.float32)
    rest = np.empty(d + 1, np.float32)
    weight = np.empty(d + 2, np.float32)
    order = np.empty(d + 1, np.int64)
    for i in range(lo, hi):
        total = f32(0)
        for j in range(d, 0, -1):
            scaled = features[j - 1, i] * scale[j - 1]
            elevated[j] = total - scaled * f32(j)
            total = total + scaled
        elevated[0] = total
        off = 0
        for j in range(d + 1):
            rounded = np.rint(elevated[j] * down)
            near[j] = rounded * up
            rest[j] = elevated[j] - near[j]
            order[j] = 0
            off += np.int64(rounded)
        for j in range(d):
            for k in range(j + 1, d + 1):
                if rest[j] < rest[k]:
                    order[j] += 1
                else:
                    order[k] += 1
        for k in range(d + 2):
            weight[k] = f32(0)
        for j in range(d + 1):
            r = order[j] + off
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
            rank[i, j] = r
        weight[0] += f32(1) + weight[d + 1]
        for k in range(d + 1):
            barycentric[i, k] = weight[k]


@compiled
def number_vertices(rem0, rank, stride, vertices):  # type: ignore[no-untyped-def]
    """Number the vertices of all simplices by first touch in `vertices`, (N, d+1); return their packed names, (M,)."""
    n, width = rank.shape
    d = width - 1
    capacity = 1
    while capacity < 2 * n + 64:
        capacity *= 2
    shift = np.uint64(64)
    size = capacity
    while size > 1:
        size //= 2
        shift -= np.uint64(1)
    slots = np.full(capacity, -1, np.int32)
    names = np.empty(capacity // 2 + 8, np.int64)
    m = 0
    all_steps = np.int64(0)
    for j in range(d):
        all_steps += stride[j]
    axis = np.empty(width, np.int64)
    for i in range(n):
        name = np.int64(0)
        for j in range(d):
            name += rem0[i, j] * stride[j]
        for j in range(width):
            axis[rank[i, j]] = j
        for k in range(width):
            if k > 0:
                name += all_steps - width * stride[axis[width - k]]
            if 2 * m >= capacity or m >= len(names) - 1:
                # twice the room, and every name in again
                capacity *= 2
                shift -= np.uint64(1)
                slots = np.full(capacity, -1, np.int32)
                more = np.empty(capacity // 2 + 8, np.int64)
                more[:m] = names[:m]
                names = more
                for v in range(m):
                    slot = np.int64((np.uint64(names[v]) * _HASH) >> shift)
                    while slots[slot] >= 0:
                        slot = (slot + 1) & (capacity - 1)
                    slots[slot] = v
            slot = np.int64((np.uint64(name) * _HASH) >> shift)
            while True:
                v = slots[slot]
                if v < 0:
                    slots[slot] = m
                    names[m] = name
                    v = np.int32(m)
                    m += 1
                    break
                if names[v] == name:
                    break
                slot = (slot + 1) & (capacity - 1)
            vertices[i, k] = v
    return names[:m].copy()


@compiled
def link_chains(lo, hi, names, by_name, stride, order, length):  # type: ignore[no-untyped-def]
    """Find, for each axis j, the chains of neighbours: order[j, :length[j]] lists vertices chain after chain.

    The last vertex of a chain is stored as its bitwise complement. A vertex alone on its axis is left out.
    """
    width, m = order.shape[0], len(names)
    total = np.int64(0)
    for j in range(width - 1):
        total += stride[j]
    for j in range(lo, hi):
        step = width * stride[j] - total
        ahead = np.full(m, -1, np.int32)
        started = np.ones(m, np.bool_)
        # the names are sorted, so are the neighbours' names: walk along both
        at = 0
        if step > 0:
            for s in range(m):
                wanted = names[by_name[s]] + step
                while at < m and names[by_name[at]] < wanted:
                    at += 1
                if at < m and names[by_name[at]] == wanted:
                    ahead[by_name[s]] = by_name[at]
                    started[by_name[at]] = False
        else:
            for s in range(m):
                wanted = names[by_name[s]] - step
                while at < m and names[by_name[at]] < wanted:
                    at += 1
                if at < m and names[by_name[at]] == wanted:
                    ahead[by_name[at]] = by_name[s]
                    started[by_name[s]] = False
        filled = 0
        for i in range(m):
            if started[i] and ahead[i] >= 0:
                v = np.int32(i)
                while ahead[v] >= 0:
                    order[j, filled] = v
                    filled += 1
                    v = ahead[v]
                order[j, filled] = ~v
                filled += 1
        length[j] = filled


@compiled
def blur_once(order, values, behind, ahead):  # type: ignore[no-untyped-def]
    """Blur one number per vertex along one axis, in place; record what share of the new value each neighbour gave.

    values: (M,). order: (L,) from `link_chains`; on return the complements are gone, and behind and ahead, (L,),
    hold the shares, 0 at the ends of a chain.
    """
    before = np.float32(0)
    half = np.float32(0.5)
    for e in range(len(order)):
        v = order[e]
        last = v < 0
        if last:
            v = ~v
            order[e] = v
        own = values[v]
        after = np.float32(0)
        if not last:
            following = order[e + 1]
            after = values[~following if following < 0 else following]
        new = own + half * (before + after)
        values[v] = new
        behind[e] = half * before / new if new > 0 else np.float32(0)
        ahead[e] = half * after / new if new > 0 else np.float32(0)
        before = np.float32(0) if last else own


@compiled
def blur_again(order, behind, ahead, values):  # type: ignore[no-untyped-def]
    """As `blur_once`, on an axis that it has prepared: the shares' zeros mark the chains' ends."""
    before = np.float32(0)
    half = np.float32(0.5)
    for e in range(len(order)):
        v = order[e]
        own = values[v]
        after = np.float32(0) if ahead[e] == 0 else values[order[e + 1]]
        if behind[e] == 0:
            before = np.float32(0)
        new = own + half * (before + after)
        values[v] = new
        behind[e] = half * before / new if new > 0 else np.float32(0)
        ahead[e] = half * after / new if new > 0 else np.float32(0)
        before = own


@compiled
def splat_ones(vertices, barycentric, scale, total):  # type: ignore[no-untyped-def]
    """total[v] += barycentric * scale[i] over the points i that touch v."""
    for i in range(vertices.shape[0]):
        for k in range(vertices.shape[1]):
            total[vertices[i, k]] += barycentric[i, k] * scale[i]


@compiled
def slice_ones(vertices, barycentric, total, result):  # type: ignore[no-untyped-def]
    """result[i] = sum of barycentric * total[v] over the vertices v of point i."""
    for i in range(vertices.shape[0]):
        s = np.float32(0)
        for k in range(vertices.shape[1]):
            s += barycentric[i, k] * total[vertices[i, k]]
        result[i] = s


class FastLattice:
    """A lattice of (d, N) float32 features.

    vertices: (N, d+1) int32; barycentric: (N, d+1) float32, >= 0; num_vertices: M;
    order: per axis, (L,) int32, its chains of vertices (see `link_chains`).
    """

    def __init__(self, features: Array, crew: Crew) -> None:
        d, n = features.shape
        rem0, rank = np.empty((n, d + 1), np.int32), np.empty((n, d + 1), np.int8)
        self.barycentric = np.empty((n, d + 1), np.float32)
        scale = np.array(embedding_scale(d), np.float32)
        crew.run(embed, n, features, scale, rem0, rank, self.barycentric)
        np.maximum(self.barycentric, 0, out=self.barycentric)  # rounding leaves some at -1e-8
        spans = (rem0.max(0).astype(np.int64) - rem0.min(0)).tolist()
        strides = mixed_radix(spans, d)
        if strides is None:
            raise Unsuitable("vertex names do not fit in 62 bits")
        stride = np.array(strides, np.int64)
        self.vertices = np.empty((n, d + 1), np.int32)
        names = number_vertices(rem0, rank, stride, self.vertices)
        self.num_vertices = len(names)
        order, length = np.empty((d + 1, len(names)), np.int32), np.zeros(d + 1, np.int64)
        crew.run(link_chains, d + 1, names, np.argsort(names).astype(np.int32), stride, order, length)
        self.order = [order[j, : length[j]].copy() for j in range(d + 1)]

    @property
    def dimension(self) -> int:
        """d, the number of features of a point."""
        return self.vertices.shape[1] - 1
