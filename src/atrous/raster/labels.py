"""Labels as a tiled TIFF that GIS programs show in the classes' colours, where the picture lies on the ground."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.labels import Labels
from atrous.raster.base import needed
from atrous.raster.tiff import NODATA
from atrous.version import __version__
from atrous.visualize import VOID_COLOUR

TILE = 512  # pixels
CLASSIC = 2**32 - 2**25  # bytes that a TIFF with 32-bit offsets surely holds, its heads included


def write_label_tiff(
    path: Path,
    rows: Callable[[int, int], NDArray[Any]],
    shape: tuple[int, int],
    labels: Labels,
    extratags: list[tuple[int, int, int, Any, bool]] | None = None,
    classic: int = CLASSIC,
    description: str = "",
) -> None:
    """Write labels (H, W) of `shape` as deflated tiles: up to 255 classes with their colours, beyond as 16-bit grey.

    rows(top, bottom): those label rows, uint8 or uint16. `labels.ignore_index` is declared as GDAL_NODATA. Beyond
    `classic` bytes before compression it is a BigTIFF. description: its tag ImageDescription.
    """
    tifffile = needed("tifffile", "TIFF")
    height, width = shape
    dtype = label_dtype(labels)
    nodata = ignored(labels)

    def tiles() -> Iterator[NDArray[Any]]:
        for top in range(0, height, TILE):
            band = rows(top, min(top + TILE, height))
            for left in range(0, width, TILE):
                tile = np.full((TILE, TILE), nodata, dtype)
                part = band[:, left : left + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile

    colours: dict[str, Any] = {"photometric": "minisblack"}
    if dtype == np.uint8:
        table = np.zeros((256, 3), np.uint16)
        table[: len(labels)] = labels.palette
        table[nodata] = VOID_COLOUR
        colours = {"photometric": "palette", "colormap": table.T * 257}
    with tifffile.TiffWriter(path, bigtiff=height * width * dtype.itemsize > classic) as writer:
        writer.write(
            tiles(),
            shape=shape,
            dtype=dtype,
            tile=(TILE, TILE),
            compression="zlib",
            maxworkers=1,
            software=f"atrous {__version__}",
            metadata=None,
            description=description,
            extratags=[*(extratags or []), (NODATA, 2, 0, str(nodata), True)],
            **colours,
        )


def description_of(path: Path) -> str | None:
    """The tag ImageDescription of a TIFF; None where it is none, or not there."""
    tifffile = needed("tifffile", "TIFF")
    try:
        with tifffile.TiffFile(path) as file:
            return str(file.pages.first.description)
    except (OSError, tifffile.TiffFileError):
        return None


def label_dtype(labels: Labels) -> np.dtype[Any]:
    """uint8 where a number is left for pixels without data, else uint16."""
    return np.dtype(np.uint8 if len(labels) <= 255 else np.uint16)


def ignored(labels: Labels) -> int:
    """The label of pixels without data: the last number of the type."""
    return int(np.iinfo(label_dtype(labels)).max)
