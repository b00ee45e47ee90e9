"""Reading pictures and masks; what cannot be used is an InputError that names the file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from atrous.data.labels import Colour, Labels
from atrous.data.matfile import read_mat
from atrous.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")

ORIENTATION = 0x0112  # EXIF
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, PLANAR_CONFIGURATION, SEPARATE = 258, 277, 284, 2  # TIFF 6.0
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHER_TIFF = (
    "a TIFF of a kind that is read by `atrous predict --large` alone: save it as RGB or grey, 8 or 16 bits"
)


def allow_pixels(limit: int) -> None:
    """Let this process read pictures of up to `limit` pixels, fewer or more than Pillow's own 179 million."""
    Image.MAX_IMAGE_PIXELS = -(-limit // 2)  # Pillow refuses what has more than twice that, and warns before
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str | Path, upright: bool = True, notes: list[str] | None = None) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8, RGB, upright.

    - EXIF orientation is applied: the array is the picture as a viewer shows it, and masks must match that. With
      `upright=False` it is the picture as it is stored.
    - Grey and palette pictures become RGB; CMYK is converted without a colour profile.
    - 16 bits per channel are scaled to 8 by keeping the high byte: 0..65535 becomes 0..255.
    - Transparent pixels are composited over white. Of an animation, the first frame is taken, and of a file of many
      pages the first page; a line that says so is added to `notes`.

    Raises InputError, one line naming the file: no such file, empty file, not a picture, damaged or cut
    off, more pixels than `allow_pixels` allows (179 million), 32 bits per channel.
    """
    path = Path(path)
    return rgb(_load(path, upright, notes), str(path))


def rgb(picture: Image.Image, name: str) -> np.ndarray:
    """A picture in memory as (H, W, 3) uint8, by the rules of `read_image`, not turned. name: for the InputError."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise InputError(f"{name}: 32-bit picture: save it with 8 or 16 bits per channel")
        grey = (values >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise InputError(f"{name}: floating-point picture: save it with 8 or 16 bits per channel")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return np.array(Image.alpha_composite(white, picture).convert("RGB"))
    try:
        return np.array(picture.convert("RGB"))
    except ValueError:
        raise InputError(f"{name}: colour mode {picture.mode} cannot be turned into RGB") from None


def read_mask(path: str | Path, colours: Labels | None = None) -> np.ndarray:
    """Read a mask as (H, W) class numbers: uint8 where all values fit, otherwise int32.

    - Grey files (1, 8 or 16 bits) and palette files give their stored values; never a palette's
      colours.
    - RGB or RGBA files need `colours`: each pixel must have exactly one of `colours.palette` (gives the
      class) or `colours.void_colours` (gives `colours.ignore_index`). Alpha is not looked at.
    - RGB files without `colours` are taken as class numbers if their three channels are equal everywhere,
      as some tools save grey masks so.
    - MATLAB files hold them in a matrix "S", as those of COCO-Stuff 10k do.
    - EXIF orientation is applied, as in `read_image`.

    Raises InputError, one line naming the file: all that `read_image` raises; a colour that the map lacks;
    RGB without a map; JPEG, whose compression changes class numbers.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return read_mat(path, "S")
    picture = _load(path)
    if picture.format in ("JPEG", "MPO"):
        raise InputError(f"{path}: a mask saved as JPEG has its class numbers blurred: save it as PNG")
    mode = picture.mode
    if mode in ("RGB", "RGBA", "RGBX"):
        rgb = np.asarray(picture)[..., :3]
        if colours is not None:
            return _match_colours(rgb, colours, path)
        if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
            return rgb[..., 0].copy()
        raise InputError(
            f"{path}: the mask is a colour picture and no colour map says which class a colour means: put a "
            "labelmap.txt with lines 'name:r,g,b' beside the folders (where there is a classes.txt too, say "
            "--data_options.classes labelmap.txt), or save class numbers as a grey PNG"
        )
    if mode in ("LA", "PA"):
        picture = picture.getchannel(0)
    elif mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise InputError(f"{path}: colour mode {mode} cannot hold a mask: save class numbers as a grey PNG")
    values = np.asarray(picture)
    if values.dtype == bool or values.dtype == np.uint8:
        return values.astype(np.uint8)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(
            f"{path}: mask values from {values.min()} to {values.max()}: only 0..65535 are understood"
        )
    return values.astype(np.uint8 if values.max(initial=0) <= 255 else np.int32)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` gives it, from the head of the file; InputError as there."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = _is_turned(picture)
    except Exception:  # read_image says what is wrong with it
        height, width, turned = *read_image(path).shape[:2], False
    return (width, height) if turned else (height, width)


def is_turned(path: Path) -> bool:
    """Whether the EXIF orientation of a picture exchanges its height and width; only the head is read."""
    try:
        with Image.open(path) as picture:
            return _is_turned(picture)
    except Exception:  # read_image says what is wrong with it
        return False


def _is_turned(picture: Image.Image) -> bool:
    return picture.getexif().get(ORIENTATION) in (5, 6, 7, 8)


def has_colours(path: Path) -> bool:
    """Whether a mask is kept as colours, not as class numbers; only the head of the file is read."""
    try:
        with Image.open(path) as picture:
            return picture.mode in ("RGB", "RGBA", "RGBX")
    except Exception:  # read_mask says what is wrong with it
        return False


def palette_colours(path: Path) -> dict[int, Colour]:
    """{stored value: its colour} of all values in a palette file; nothing for other kinds of files."""
    try:
        with Image.open(path) as picture:
            if picture.mode != "P":
                return {}
            palette, stored = picture.getpalette("RGB") or [], picture.getcolors(256) or []
    except Exception:  # read_mask says what is wrong with it
        return {}
    colours = np.array([*palette, *[0] * (768 - len(palette))]).reshape(256, 3).tolist()
    return {value: tuple(colours[value]) for _, value in stored if isinstance(value, int)}


def _load(path: Path, upright: bool = True, notes: list[str] | None = None) -> Image.Image:
    try:
        with Image.open(path) as picture:
            frames = (
                getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1
            )  # a photo and its previews
            if _is_garbled(picture):
                raise InputError(f"{path}: {OTHER_TIFF}")
            picture.load()
            if upright:
                ImageOps.exif_transpose(picture, in_place=True)
            if frames > 1 and notes is not None:
                notes.append(f"{path}: has {frames} frames or pages: the first one was taken")
            return picture
    except InputError:
        raise
    except UnidentifiedImageError:
        start = path.read_bytes()[:12]
        reason = f"not a picture (it begins with {start!r})" if start else "the file is empty"
        if start[:4] in TIFF_STARTS:
            reason = OTHER_TIFF
    except FileNotFoundError:
        reason = "no such file"
    except (IsADirectoryError, PermissionError) as error:
        reason = f"cannot be opened ({error.strerror})"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.findall(r"\d+", str(error))[0]  # Pillow does not let look at the size
        reason = f"has too many pixels, {int(pixels):,}: if the file can be trusted, --max_pixels {pixels} allows it"
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        reason = f"the picture is damaged or cut off ({error})"
    raise InputError(f"{path}: {reason}")


def _is_garbled(picture: Image.Image) -> bool:
    """Whether Pillow (12) reads a TIFF wrongly: planes of 16 bits as planes of 8, the first of many bands as grey."""
    tags = getattr(picture, "tag_v2", {})
    samples, bands = tags.get(SAMPLES_PER_PIXEL, 1), len(picture.getbands())
    deep_planes = max(tags.get(BITS_PER_SAMPLE, (8,))) > 8 and tags.get(PLANAR_CONFIGURATION) == SEPARATE
    return samples > 1 and (deep_planes or samples > bands == 1)


def _match_colours(rgb: np.ndarray, colours: Labels, path: Path) -> np.ndarray:
    known = np.array([*colours.palette, *colours.void_colours], dtype=np.int32).reshape(-1, 3)
    classes = np.array(
        [*range(len(colours)), *[colours.ignore_index] * len(colours.void_colours)], dtype=np.int32
    )
    known_codes = known @ np.array([65536, 256, 1], dtype=np.int32)
    order = np.argsort(known_codes, kind="stable")
    known_codes, classes = known_codes[order], classes[order]

    codes = rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]
    place = np.minimum(np.searchsorted(known_codes, codes), len(known_codes) - 1)
    unknown = known_codes[place] != codes
    if unknown.any():
        first = tuple(int(channel) for channel in rgb[unknown][0])
        raise InputError(
            f"{path}: colour {first} is not in the colour map ({int(unknown.sum())} unknown pixels)"
        )
    return classes[place].astype(np.uint8 if classes.max() <= 255 else np.int32)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; raises InputError where it cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
