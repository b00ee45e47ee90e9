"""Class colours that stay apart for people with and without red-green blindness.

The first seven are those of Okabe and Ito (2008, "Color Universal Design"). Each further one is the candidate that is
farthest from all before it, where the distance of two colours is the least of three: as they are, and as a protanope
and a deuteranope see them (Viénot, Brettel and Mollon 1999). Distances are those of OKLab (Ottosson 2020).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
)
DISTINCT = 256  # colours; from there on they come again
# of candidates, in OKLab: they are to be seen as a tint on a photo, and none is to shout (Okabe and Ito's reach 0.18)
LIGHTNESS, CHROMA = (0.42, 0.97), (0.04, 0.18)

_OKLAB_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Viénot et al. 1999 eq. 4 to 6: cone responses of linear RGB, and what is left without the L or the M cone
_VIENOT_LMS = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)
_PROTANOPE = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
_DEUTERANOPE = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])


@cache
def safe_palette(count: int, background: int | None = None) -> tuple[Colour, ...]:
    """`count` RGB colours, of which any two of the first `DISTINCT` differ; class `background` is black."""
    black = (0, 0, 0)
    wanted = max(0, count - (background is not None))
    colours = _spaced(min(wanted, DISTINCT))
    colours = tuple(colours[i % len(colours)] for i in range(wanted))
    return colours if background is None else (*colours[:background], black, *colours[background:])


def _spaced(count: int) -> tuple[Colour, ...]:
    """Okabe and Ito's, then each time the candidate whose nearest colour so far is farthest away."""
    steps = np.linspace(0, 255, 18).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    seen = as_seen(grid)
    lightness, chroma = seen[0, :, 0], np.hypot(*seen[0, :, 1:].T)
    usable = (
        (lightness > LIGHTNESS[0]) & (lightness < LIGHTNESS[1]) & (chroma > CHROMA[0]) & (chroma < CHROMA[1])
    )
    grid, seen = grid[usable], seen[:, usable]
    chosen = list(OKABE_ITO[:count])
    nearest = np.full(len(grid), np.inf)
    for colour in [(0, 0, 0), (255, 255, 255), *chosen]:
        nearest = np.minimum(nearest, _distance(seen, as_seen(np.array([colour]))))
    while len(chosen) < count:
        best = int(nearest.argmax())
        red, green, blue = (int(value) for value in grid[best])
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, _distance(seen, seen[:, best : best + 1]))
    return tuple(chosen)


def as_seen(colours: NDArray[np.generic]) -> NDArray[np.float64]:
    """(N, 3) RGB 0..255 -> (3, N, 3) OKLab: as they are, to a protanope, to a deuteranope."""
    linear = linear_rgb(colours)
    back = np.linalg.inv(_VIENOT_LMS)
    views = [linear, *(linear @ (back @ lost @ _VIENOT_LMS).T for lost in (_PROTANOPE, _DEUTERANOPE))]
    return np.stack([np.cbrt(np.clip(view, 0, 1) @ _OKLAB_LMS.T) @ _OKLAB.T for view in views])


def linear_rgb(colours: NDArray[np.generic]) -> NDArray[np.float64]:
    """sRGB 0..255 -> light 0..1 (IEC 61966-2-1)."""
    s = colours.astype(np.float64) / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, N, 3) and (3, 1, 3) -> (N,): the least distance over the three ways to see."""
    least: NDArray[np.float64] = np.linalg.norm(a - b, axis=-1).min(0)
    return least
