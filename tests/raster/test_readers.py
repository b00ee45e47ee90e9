"""Windows of large pictures: against the arrays that were written, and against `read_image`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.data.pictures import read_image
from atrous.errors import InputError
from atrous.raster import open_raster, picture_size
from atrous.raster.png import PngRaster
from atrous.raster.stream import VipsRaster

HEIGHT, WIDTH = 83, 117
WINDOWS = [(0, 20, 0, 117), (20, 51, 3, 99), (60, 83, 100, 117), (5, 6, 116, 117)]  # the last goes back up


def smooth(samples: int, dtype: Any = np.uint8) -> np.ndarray:
    """Ramps with some noise: of PNG's filters, each fits some rows best."""
    rng = np.random.default_rng(samples)
    y, x, s = np.mgrid[:HEIGHT, :WIDTH, :samples]
    values = 110 + 60 * np.sin(y / 9 + s) + 40 * np.cos(x / 7 - s) + rng.integers(0, 9, y.shape)
    return (values * (257 if dtype == np.uint16 else 1) + rng.integers(0, 2, y.shape)).astype(dtype)


def check(path: Path, expected: np.ndarray, valid: np.ndarray | None = None) -> None:
    raster = open_raster(path)
    assert (raster.height, raster.width) == expected.shape[:2] == picture_size(path)
    for top, bottom, left, right in WINDOWS:
        band = raster.read(top, bottom, left, right)
        np.testing.assert_array_equal(band.pixels, expected[top:bottom, left:right])
        there = np.ones(band.pixels.shape[:2], bool) if band.valid is None else band.valid
        np.testing.assert_array_equal(there, True if valid is None else valid[top:bottom, left:right])


def high_byte(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {"rowsperstrip": HEIGHT},
    "one deflated strip": {"rowsperstrip": HEIGHT, "compression": "zlib", "predictor": 2},
    "strips": {"rowsperstrip": 7},
    "deflated strips": {"rowsperstrip": 13, "compression": "zlib"},
    "LZW strips": {"rowsperstrip": 13, "compression": "lzw", "predictor": 2},
    "tiles": {"tile": (32, 48)},
    "LZW tiles": {"tile": (16, 32), "compression": "lzw"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_every_layout(tmp_path: Path, layout: str, samples: int, dtype: Any) -> None:
    """Four bands without alpha: the fourth, of infrared say, is left out."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    values, path = smooth(samples, dtype), tmp_path / "a.tif"
    kinds: dict[str, Any] = {1: {"photometric": "minisblack"}, 3: {"photometric": "rgb"}}
    kinds[4] = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    stored = values[..., 0] if samples == 1 else values
    for planar in ("contig", "separate") if samples > 1 else ("contig",):
        data = np.moveaxis(stored, 2, 0) if planar == "separate" else stored
        for order in "<>":
            tifffile.imwrite(
                path, data, byteorder=order, bigtiff=order == ">", planarconfig=planar, metadata=None,
                **kinds[samples], **LAYOUTS[layout],
            )  # fmt: skip
            check(path, np.repeat(high_byte(values), 3, 2) if samples == 1 else high_byte(values[..., :3]))


def test_tiff_in_jpeg_is_what_pillow_reads(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    Image.fromarray(smooth(3)).convert("YCbCr").save(path, compression="jpeg", quality=95)  # by libtiff
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric == 6
    found = open_raster(path).read(0, HEIGHT, 0, WIDTH).pixels.astype(int)
    assert np.abs(found - read_image(path)).max() <= 4, "two decoders of JPEG round differently, no more"
    assert np.abs(found - smooth(3)).mean() < 4
    tifffile.imwrite(path, smooth(3), tile=(32, 48), compression="jpeg", photometric="rgb", metadata=None)
    assert np.abs(open_raster(path).read(0, HEIGHT, 0, WIDTH).pixels.astype(int) - smooth(3)).mean() < 4


def test_tiff_palette_white_is_zero_and_alpha(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    index = smooth(1)[..., 0]
    table = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=table * 257, tile=(16, 16))
    check(tmp_path / "p.tif", table.T[index].astype(np.uint8))
    tifffile.imwrite(tmp_path / "w.tif", index, photometric="miniswhite", rowsperstrip=10)
    check(tmp_path / "w.tif", np.repeat(255 - index[..., None], 3, 2))
    rgba = np.dstack([smooth(3), np.where(index > 120, 0, index * 2).astype(np.uint8)])
    tifffile.imwrite(
        tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32), metadata=None
    )
    check(tmp_path / "a.tif", read_image(tmp_path / "a.tif"), rgba[..., 3] > 0)


def test_tiff_nodata_and_tiles_that_are_left_out(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values, path = smooth(3), tmp_path / "a.tif"
    values[10:30, 40:70] = 7
    values[50, 50, 0] = 7  # one band alone is a colour
    tifffile.imwrite(
        path, values, photometric="rgb", tile=(32, 32), metadata=None, extratags=[(42113, 2, 0, "7", True)]
    )
    there = (values != 7).any(2)
    check(path, values, there)

    def tiles() -> Any:
        for top in range(0, HEIGHT, 32):
            for left in range(0, WIDTH, 32):
                tile = np.zeros((32, 32, 3), np.uint8)
                part = values[top : top + 32, left : left + 32]
                tile[: part.shape[0], : part.shape[1]] = part
                yield None if (top, left) == (32, 64) else tile

    tifffile.imwrite(
        path, tiles(), shape=values.shape, dtype=np.uint8, photometric="rgb", tile=(32, 32), compression="zlib",
        metadata=None,
    )  # fmt: skip
    missing = np.ones((HEIGHT, WIDTH), bool)
    missing[32:64, 64:96] = False
    check(path, np.where(missing[..., None], values, 0), missing)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_strips_that_are_left_out_have_no_data(tmp_path: Path, compression: str | None, planar: str) -> None:
    """A band apart that is missing takes the pixel with it."""
    tifffile = pytest.importorskip("tifffile")
    values, path = smooth(3) | 1, tmp_path / "a.tif"
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    tifffile.imwrite(
        path, stored, photometric="rgb", planarconfig=planar, rowsperstrip=20, compression=compression, metadata=None
    )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("StripOffsets", "StripByteCounts"):
            tag = file.pages.first.tags[name]
            tag.overwrite([0 if strip == 2 else value for strip, value in enumerate(tag.value)])
    values[40:60, :, slice(None) if planar == "contig" else 0] = 0
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[40:60] = False
    check(path, values, valid)


def test_tiff_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            open_raster(path).read(0, HEIGHT, 0, WIDTH)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    tifffile.imwrite(path, smooth(3), photometric="rgb", tile=(32, 32), compression="zlib", metadata=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("cut off")
    path.write_bytes(whole[:6])
    refused("not a readable TIFF")
    at = len(whole) - 200
    path.write_bytes(whole[:at] + b"\0" * 100 + whole[at + 100 :])
    refused("damaged")
    tifffile.imwrite(path, smooth(3).astype(np.float32), photometric="rgb", metadata=None)
    refused("8 or 16 bits")
    tifffile.imwrite(path, smooth(4), photometric="separated", metadata=None)
    refused("save it as RGB")
    tifffile.imwrite(path, smooth(3), photometric="rgb", metadata=None, extratags=[(274, 3, 1, 6, True)])
    refused("orientation 6")
    np.testing.assert_array_equal(open_raster(path, upright=False).read(0, 9, 0, 9).pixels, smooth(3)[:9, :9])
    monkeypatch.setattr("atrous.raster.tiff.AT_ONCE", 1000)
    tifffile.imwrite(
        path, smooth(3), photometric="rgb", rowsperstrip=HEIGHT, compression="zlib", metadata=None
    )
    refused("TILED=YES")


def png(path: Path, mode: str) -> None:
    """A PNG of some kind."""
    values = smooth(4)
    values[..., 3] = np.where(values[..., 3] > 120, 0, values[..., 3] * 2)
    if mode == "RGB16":
        imagecodecs = pytest.importorskip("imagecodecs")
        path.write_bytes(imagecodecs.png_encode(smooth(3, np.uint16)))
    elif mode == "I;16":
        Image.fromarray(smooth(1, np.uint16)[..., 0]).save(path)
    elif mode.startswith("P"):
        bits = int(mode[1:])
        picture = Image.fromarray(values[..., 0] >> (8 - bits), "P")
        picture.putpalette(np.random.default_rng(1).integers(0, 256, 3 * 2**bits, dtype=np.uint8).tobytes())
        picture.save(path, bits=bits, transparency=bytes([255, 0, 90]))
    elif mode == "key":
        Image.fromarray(values[..., :3]).save(path, transparency=tuple(values[30, 30, :3].tolist()))
    else:
        Image.fromarray(values, "RGBA").convert(mode).save(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P2", "P4", "P8", "key", "I;16", "RGB16"])
def test_png_is_what_read_image_reads(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    png(path, mode)
    monkeypatch.setattr("atrous.raster.png.PIECE", 97)
    monkeypatch.setattr("atrous.raster.png.BAND", 1500)
    valid = None
    if mode == "RGB16":
        expected = high_byte(smooth(3, np.uint16))
    else:
        expected = read_image(path)
        with Image.open(path) as picture:
            valid = np.asarray(picture.convert("RGBA"))[..., 3] > 0
    if mode == "I;16":
        valid = None
    assert isinstance(open_raster(path), PngRaster)
    check(path, expected, valid)


def test_png_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    png(path, "RGB")
    whole = path.read_bytes()
    for broken, match in ((whole[: len(whole) // 2], "cut off"), (whole[:20], "cut off|not a picture")):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=match):
            open_raster(path).read(0, HEIGHT, 0, WIDTH)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * 50 + whole[middle + 50 :])
    with pytest.raises(InputError, match="damaged"):
        open_raster(path).read(0, HEIGHT, 0, WIDTH)


def test_what_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(InputError, match="no such file"):
        open_raster(path)
    path.touch()
    with pytest.raises(InputError, match="the file is empty"):
        open_raster(path)
    path.write_text("hello")
    with pytest.raises(InputError, match="not a picture"):
        open_raster(path)


def test_jpeg_is_read_whole_or_by_libvips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(3)).save(path, quality=95, subsampling=0)
    check(path, read_image(path))
    monkeypatch.setattr("atrous.raster.WHOLE", 100)
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "pyvips", None)
        with pytest.raises(InputError, match=r"a\.jpg\) need pyvips.* pip install 'atrous\[vips\]'"):
            open_raster(path)
    pytest.importorskip("pyvips")
    raster = open_raster(path)
    assert isinstance(raster, VipsRaster)
    for top, bottom, left, right in WINDOWS:
        far = (
            raster.read(top, bottom, left, right).pixels.astype(int)
            - read_image(path)[top:bottom, left:right]
        )
        assert np.abs(far).max() <= 2
    Image.fromarray(smooth(3)[:, ::-1]).save(path.with_suffix(".webp"), lossless=True)
    found = open_raster(path.with_suffix(".webp")).read(3, 9, 5, 50).pixels
    np.testing.assert_array_equal(found, smooth(3)[:, ::-1][3:9, 5:50])
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match="damaged or cut off"):
        open_raster(path).read(0, HEIGHT, 0, WIDTH)


def test_without_tifffile_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    path = tmp_path / "a.tif"
    Image.fromarray(smooth(3)).save(path)
    with pytest.raises(InputError, match=r"pip install 'atrous\[large\]'"):
        open_raster(path)
