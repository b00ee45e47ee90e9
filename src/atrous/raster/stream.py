"""Pictures without windows of their own: whole in memory where they are small, else through libvips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.raster.base import Band, Raster, needed, rgb, turned


class WholeRaster(Raster):
    """A picture that is in memory."""

    def __init__(self, path: Path, image: NDArray[np.uint8]) -> None:
        self.path, self.image = path, image
        self.height, self.width = image.shape[:2]

    def read(self, top: int, bottom: int, left: int, right: int) -> Band:
        return Band(self.image[top:bottom, left:right])


class VipsRaster(Raster):
    """Whatever libvips reads, from top to bottom; going up opens the file anew."""

    def __init__(self, path: Path, upright: bool = True) -> None:
        self.vips = needed("pyvips", str(path))
        self.path = path
        image = self._open()
        self.height, self.width = image.height, image.width
        fields = image.get_fields()
        orientation = image.get("orientation") if "orientation" in fields else 1
        if upright and orientation != 1:
            raise turned(path, orientation)

    def _open(self) -> Any:
        self.vips.cache_set_max(0)  # results of operations, which hold decoded rows
        try:
            image = self.vips.Image.new_from_file(str(self.path), access="sequential", fail_on="truncated")
            image = image.colourspace("b-w" if image.bands < 3 else "srgb")
        except self.vips.Error as error:
            raise self._damaged(error) from None
        if image.format != "uchar":
            raise InputError(f"{self.path}: {image.format} samples: save it with 8 or 16 bits per channel")
        self.region, self.next_row = self.vips.Region.new(image), 0
        return image

    def read(self, top: int, bottom: int, left: int, right: int) -> Band:
        if top < self.next_row:
            self._open()
        try:
            raw = self.region.fetch(0, top, self.width, bottom - top)
        except self.vips.Error as error:
            raise self._damaged(error) from None
        self.next_row = bottom
        values = np.frombuffer(raw, np.uint8).reshape(bottom - top, self.width, -1)[:, left:right]
        colours, alpha = values[..., : -1 if values.shape[2] in (2, 4) else None], None
        if values.shape[2] in (2, 4):
            alpha = values[..., -1]
        return Band(rgb(colours, alpha), None if alpha is None else alpha > 0)

    def _damaged(self, error: Exception) -> InputError:
        lines = str(error).split("\n")
        return InputError(
            f"{self.path}: the picture is damaged or cut off ({lines[min(1, len(lines) - 1)].strip()})"
        )
