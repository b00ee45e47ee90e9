"""3x3 convolutions with a quarter of the multiplications, at any rate (Winograd's minimal filtering).

Lavin, Gray. Fast algorithms for convolutional neural networks. CVPR 2016. arXiv 1509.09308, sec. 4.

    a tile of 6x6 pixels d  ->  U = B d B'   36 points, for every channel     `to_points`
    a kernel of 3x3      g  ->  V = G g G'   36 points, once                  `kernel_points`
    M[point] = U[point] V[point]             36 matrix products over the channels, by oneDNN
    4x4 outputs              =  A M A'                                        `from_points`

36 products for 16 outputs, where the plain sum has 144. At a rate r the pixels r apart make r * r grids, and each of
them is an ordinary convolution: a tile takes every r-th pixel.

The plain sum leaves out what meets zeros around the map (v3 sec. 3.3), tiles at the rim do not: at a rate near the
map's side they have more to do, and `pays` says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atrous.kernels import compiled_loop, openmp
from atrous.kernels.compiled_loop import Loop
from atrous.kernels.dilated import share
from atrous.layers import infers_on_cpu

TILE = 4  # outputs along a side of a tile; m in the paper
KERNEL = 3  # r
SIDE = TILE + KERNEL - 1  # pixels, and points
# Where the polynomials are taken, with infinity. Powers of these are exact in float32, and rounding is a quarter of
# that at 0, +-1, +-2, the points of the paper: 1.5e-6 of the largest output against 5.7e-6 for 256 channels.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
# Tiles of one matrix product: oneDNN lays the kernels out by that number, and anew where it changes, which takes longer
# than the products
GROUP = 64
TOGETHER = 4  # groups that are worked on at most, so that their points stay in the processor's cache
# In multiplications of a plain convolution, as measured on 2 threads of a Zen 5 (docs/benchmarks.md): one of the matrix
# products, taking a channel of a tile to a point and back, and fetching a number of the transformed kernel
PRODUCT, TRANSFORM, FETCH = 1.25, 80, 42
TO_POINTS, FROM_POINTS = (
    Loop("atrous.kernels.winograd_kernels", name) for name in ("to_points", "from_points")
)
GEOMETRY = ([0, 0], [1, 1], [1, 1])  # of a 1x1 convolution: padding, stride, dilation
GAIN = 0.85  # of a convolution's time: what must be left for the tiles to be taken


class Transforms(NamedTuple):
    """back A (TILE, SIDE), kernel G (SIDE, KERNEL), into B (SIDE, SIDE) of the paper's sec. 4.1 (there A', G, B')."""

    back: NDArray[np.float64]
    kernel: NDArray[np.float64]
    into: NDArray[np.float64]


@functools.cache
def transforms() -> Transforms:
    """Toom and Cook's: a polynomial known at SIDE - 1 points and by its leading coefficient, interpolated."""
    back, kernel, into = np.zeros((TILE, SIDE)), np.zeros((SIDE, KERNEL)), np.zeros((SIDE, SIDE))
    points = np.array(POINTS)
    for k, point in enumerate(points):
        others = np.delete(points, k)
        back[:, k] = point ** np.arange(TILE)
        kernel[k] = point ** np.arange(KERNEL) / np.prod(point - others)
        into[k, :-1] = np.poly(others)[::-1]
    back[-1, -1] = kernel[-1, -1] = 1
    into[-1] = np.poly(points)[::-1]
    return Transforms(back, kernel, into)


def kernel_points(weight: Tensor) -> Tensor:
    """(D, C, 3, 3) to float32 (SIDE * SIDE, D, C)."""
    matrix = torch.from_numpy(transforms().kernel)
    both = torch.kron(matrix, matrix).to(weight.dtype)
    return (both @ weight.flatten(2).permute(2, 0, 1).flatten(1)).view(SIDE**2, *weight.shape[:2])


@functools.cache
def available() -> bool:
    """Whether this machine can: an x86 processor with vectors, torch with oneDNN and OpenMP, and numba."""
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return vectors and openmp.available() and compiled_loop.available() and _multiplies()


def _multiplies() -> bool:
    """Whether this torch makes the products as we ask for them, which is no promise of its."""
    points, kernels = torch.ones(1, GROUP, SIDE**2 * 8), torch.ones(SIDE**2, 16, 8)
    try:
        return bool((multiply(points, packed(kernels)) == 8).all())
    except (AttributeError, RuntimeError, TypeError):
        return False


def suits(conv: nn.Conv2d) -> bool:
    """Whether `Winograd` can: 3x3, one group, zeros of its rate around the map, whole vectors of channels."""
    rate = conv.dilation[0]
    same = conv.dilation == conv.padding == (rate, rate) and conv.stride == (1, 1)
    vectors = conv.in_channels % 8 == conv.out_channels % 8 == 0
    plain = conv.groups == 1 and conv.padding_mode == "zeros"
    return conv.kernel_size == (KERNEL, KERNEL) and same and vectors and plain


class WinogradConv2d(nn.Conv2d):
    """`nn.Conv2d` that `suits`, by tiles where that is the faster way. Its weights must not change after a call."""

    tiled: Winograd | None = None

    def forward(self, x: Tensor) -> Tensor:
        can = x.dtype == torch.float32 and infers_on_cpu(self, x)
        if not (can and pays(tuple(x.shape), self.out_channels, self.dilation[0])):
            return super().forward(x)
        if self.tiled is None:
            self.tiled = Winograd(self.weight, self.bias, self.dilation[0])
        return self.tiled(x)


def pays(shape: tuple[int, ...], outputs: int, rate: int) -> bool:
    """Whether tiles are the faster way for pictures (N, C, H, W), by the work that they and the plain sum take."""
    count, channels, height, width = shape
    rows, columns = tile_grid(height, width, rate)
    groups = -(-count * rows * columns * rate**2 // GROUP)
    tiles = groups * GROUP
    plain = share(height, width, rate) * KERNEL**2 * count * height * width * channels * outputs
    products = PRODUCT * tiles * channels * outputs
    transformed = TRANSFORM * tiles * (channels + outputs)
    fetched = FETCH * -(-groups // TOGETHER) * channels * outputs
    return SIDE**2 * (products + transformed + fetched) < GAIN * plain


def tile_grid(height: int, width: int, rate: int) -> tuple[int, int]:
    """Tiles down and across each of the rate * rate grids of a map."""
    rows, columns = (math.ceil(side / rate / TILE) for side in (height, width))
    return rows, columns


class Winograd:
    """A 3x3 convolution with zeros of its rate around the map, for float32 on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rate: int = 1) -> None:
        """weight: (D, C, 3, 3) float32, C and D multiples of 8. bias: (D,)."""
        self.outputs, self.channels, self.rate = weight.shape[0], weight.shape[1], rate
        self.kernels = packed(kernel_points(weight.detach()))
        self.into, self.back = (
            matrix.astype(np.float32) for matrix in (transforms().into, transforms().back)
        )
        self.bias = np.zeros(self.outputs, np.float32) if bias is None else bias.detach().numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H, W), which lies channels last."""
        count, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).contiguous()
        y = torch.empty(count, height, width, self.outputs)
        source, target = (pixels.numpy(), tuple(pixels.shape)), (y.numpy(), tuple(y.shape))
        grid = tile_grid(height, width, self.rate)
        tiles = count * grid[0] * grid[1] * self.rate**2
        lanes_in, lanes_out = compiled_loop.lanes(self.channels), compiled_loop.lanes(self.outputs)
        most = min(TOGETHER, -(-tiles // GROUP))
        with _borrowed(most * GROUP, SIDE**2 * self.channels) as points:
            tiled = points.numpy()
            for first in range(0, tiles, len(points)):
                some = min(len(points), tiles - first)
                place = (self.rate, grid, first)
                TO_POINTS.run(some, *source, *place, self.into, SIDE, lanes_in, tiled)
                groups = -(-some // GROUP)
                points[some : groups * GROUP] = 0
                grouped = points[: groups * GROUP].view(groups, GROUP, -1)
                products = multiply(grouped, self.kernels).numpy()
                back = (self.back, (TILE, SIDE), self.bias)
                FROM_POINTS.run(some, products, *back, *place, lanes_out, *target)
        return y.permute(0, 3, 1, 2)


def packed(kernels: Tensor) -> Tensor:
    """(points, D, C) in the layout that oneDNN multiplies GROUP tiles by."""
    points, outputs, channels = kernels.shape
    result: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        kernels.reshape(points * outputs, channels, 1, 1),
        *GEOMETRY,
        points,
        [TOGETHER, points * channels, GROUP, 1],
    )
    return result


def multiply(points: Tensor, kernels: Tensor) -> Tensor:
    """(groups, GROUP, SIDE * SIDE * C) to (groups, GROUP, SIDE * SIDE * D), each point with its own kernel.

    A 1x1 convolution with a group of channels for each point, by the call that torch.compile makes.
    """
    products: Tensor = torch.ops.mkldnn._convolution_pointwise(
        points.transpose(1, 2)[..., None], kernels, None, *GEOMETRY, SIDE**2, "none", [], ""
    )
    return products[..., 0].transpose(1, 2)


# Memory for the points that nobody uses now: to ask the system for it at every call takes as long as filling it
_spare: list[Tensor] = []


@contextmanager
def _borrowed(rows: int, columns: int) -> Iterator[Tensor]:
    """(rows, columns) float32, as it was left."""
    try:
        numbers = _spare.pop()
    except IndexError:  # all of it is in use, by other threads
        numbers = torch.empty(0)
    if len(numbers) < rows * columns:
        with torch.inference_mode(False):  # else it could not be written to without
            numbers = torch.empty(rows * columns)
    try:
        yield numbers[: rows * columns].view(rows, columns)
    finally:
        _spare.append(numbers)
