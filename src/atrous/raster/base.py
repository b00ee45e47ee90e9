"""What every reader of large pictures promises."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError

EXTRAS = {"tifffile": "large", "imagecodecs": "large", "pyvips": "vips"}


class Band(NamedTuple):
    """pixels: (h, w, 3) uint8 RGB. valid: (h, w) bool, False where the picture has no data; None: all of it has."""

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None = None


class Raster(Protocol):
    """A picture that is read by windows. Reading downwards is cheap; going back up may begin the file anew."""

    path: Path
    height: int
    width: int

    def read(self, top: int, bottom: int, left: int, right: int) -> Band:
        """The pixels from row `top` to before `bottom`, column `left` to before `right`; InputError where damaged."""
        ...

    def tags(self) -> list[tuple[int, int, int, Any, bool]]:
        """The georeference as tifffile's `extratags`; none for most."""
        return []


@contextmanager
def of_any_size() -> Iterator[None]:
    """Pillow may open pictures of any size within: of these, it sees heads or a few rows."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def needed(package: str, what: str) -> Any:
    """Import a package of an extra; InputError that names the pip command where it is missing."""
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: pyvips without its library
        raise InputError(
            f"large pictures ({what}) need {package}, which cannot be loaded ({str(error).splitlines()[0]}): "
            f"pip install 'atrous[{EXTRAS[package]}]'"
        ) from None


def rgb(colours: NDArray[Any], alpha: NDArray[Any] | None, premultiplied: bool = False) -> NDArray[np.uint8]:
    """(h, w, 1 or 3) uint8 or uint16 -> (h, w, 3) uint8 over white, as `read_image` has it: the high byte is kept."""
    colours = _eight_bits(colours)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    if alpha is None or (opaque := _eight_bits(alpha)).min(initial=255) == 255:
        return np.ascontiguousarray(colours)
    if premultiplied:
        return np.minimum(colours.astype(np.uint16) + (255 - opaque)[..., None], 255).astype(np.uint8)
    picture = Image.fromarray(np.dstack([colours, opaque]), "RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.array(Image.alpha_composite(white, picture).convert("RGB"))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)


def turned(path: Path, orientation: int) -> InputError:
    """What to say of a picture that a viewer would turn: windows of it cannot be."""
    return InputError(
        f"{path}: has EXIF orientation {orientation}, and a picture that is read in parts cannot be turned: "
        "save it upright, or take it as it is stored (--as_stored)"
    )
