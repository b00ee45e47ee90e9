"""Pictures read by windows, so that no more than a few pixel rows of them are in memory.

TIFF (GeoTIFF, BigTIFF)   tiles or strips, through tifffile         tiff.py
PNG                       pixel rows one after the other            png.py
JPEG and the rest         whole up to WHOLE pixels, else libvips    stream.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from atrous.data.pictures import read_image
from atrous.errors import InputError
from atrous.raster.base import Band, Raster, needed, of_any_size
from atrous.raster.png import PngRaster
from atrous.raster.stream import VipsRaster, WholeRaster
from atrous.raster.tiff import TiffRaster

WHOLE = 2**26  # pixels (8192 x 8192), 200 MB: what is decoded at once where a format leaves no other way

__all__ = ["WHOLE", "Band", "Raster", "open_raster", "picture_size"]


def open_raster(path: str | Path, upright: bool = True) -> Raster:
    """A picture to read by windows. `upright=False`: as it is stored, whatever its EXIF orientation says.

    Raises InputError, one line naming the file: what `read_image` raises; a layout that cannot be read in parts; a
    picture that would have to be turned; a package that is missing, with the pip command.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "TIFF":
        return TiffRaster(path, upright)
    height, width = picture_size(path)
    if kind == "PNG" and not PngRaster.interlaced(path):
        return PngRaster(path, upright)
    if height * width <= WHOLE:
        return WholeRaster(path, read_image(path, upright))
    if kind == "PNG":
        raise InputError(f"{path}: an interlaced PNG of {width}x{height} pixels: save it without interlacing")
    return VipsRaster(path, upright)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) as stored, from the head of the file, however large; InputError for what is no picture."""
    if _kind(path) == "TIFF":
        return TiffRaster.size(path)
    try:
        with of_any_size(), Image.open(path) as picture:
            return picture.height, picture.width
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise InputError(f"{path}: not a picture, or damaged ({error})") from None


def _kind(path: Path) -> str:
    """By the first bytes: a name may be wrong."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path}: the file is empty")
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        needed("tifffile", "TIFF")
        return "TIFF"
    return "PNG" if start == b"\x89PNG\r\n\x1a\n" else "other"
