"""Reading pictures, masks and colour maps: every kind of file that works, every message for one that does not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.labels import CAMVID, VOC, Labels, voc_palette
from atrous.data.pictures import read_image, read_mask
from atrous.errors import InputError

RNG = np.random.default_rng(7)


def save(array: np.ndarray | Image.Image, path: Path, **options: object) -> Path:
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return path


def message(path: Path, colours: Labels | None = None, mask: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        read_mask(path, colours) if mask else read_image(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
    read = read_image(save(pixels, tmp_path / "a.png"))
    assert read.dtype == np.uint8 and read.flags.writeable
    assert np.array_equal(read, pixels)


def test_grey_and_palette_become_rgb(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (5, 9), dtype=np.uint8)
    assert np.array_equal(read_image(save(grey, tmp_path / "grey.png")), np.dstack([grey] * 3))
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    read = read_image(save(picture, tmp_path / "palette.png"))
    assert read.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 1000], [32768, 40000, 65280, 65535]], dtype=np.uint16)
    read = read_image(save(values, tmp_path / f"deep.{suffix}"))
    assert read[..., 0].tolist() == [[0, 0, 1, 3], [128, 156, 255, 255]]
    assert (read[..., 0] == read[..., 2]).all()


def test_sixteen_bits_in_three_channels(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    values = np.array([[[0, 256, 65535], [1000, 32768, 511]]], dtype=">u2")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)  # width, height, bits, RGB
    rows = b"\0" + values.tobytes()
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert read_image(path).tolist() == [[[0, 1, 255], [3, 128, 1]]]


def test_cmyk(tmp_path: Path) -> None:
    cmyk = np.zeros((4, 4, 4), dtype=np.uint8)
    cmyk[:2, :, 1] = cmyk[:2, :, 2] = 255  # magenta and yellow: red
    picture = Image.fromarray(cmyk, "CMYK")
    assert np.abs(read_image(save(picture, tmp_path / "a.tif"))[0, 0].astype(int) - (255, 0, 0)).max() <= 1
    read = read_image(save(picture, tmp_path / "a.jpg", quality=100, subsampling=0)).astype(int)
    assert np.abs(read[0, 0] - (255, 0, 0)).max() < 12 and np.abs(read[3, 3] - 255).max() < 12


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    assert read_image(save(rgba, tmp_path / "a.png")).tolist() == [
        [[200, 100, 0], [255, 255, 255], [204, 204, 204]]
    ]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    save(palette, tmp_path / "p.png", transparency=bytes([255, 0]))
    assert read_image(tmp_path / "p.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]]], dtype=np.uint8), "LA")
    assert read_image(save(grey, tmp_path / "b.png"))[..., 0].tolist() == [[9, 255]]


def test_exif_orientation_puts_pictures_and_masks_upright(tmp_path: Path) -> None:
    stored = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright = np.rot90(stored, -1)
    assert np.array_equal(read_image(save(stored, tmp_path / "a.png", exif=exif)), upright)
    assert np.array_equal(read_mask(save(stored[..., 0], tmp_path / "m.png", exif=exif)), upright[..., 0])


def test_what_is_no_picture(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("this is not a picture at all")
    assert "not a picture (it begins with b'this is not " in message(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    assert "the file is empty" in message(tmp_path / "empty.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be opened" in message(tmp_path / "folder.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_off(tmp_path: Path, suffix: str, share: float) -> None:
    whole = save(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    text = message(path)
    assert "damaged or cut off" in text or "not a picture" in text


def test_damaged_inside(tmp_path: Path) -> None:
    whole = bytearray(
        save(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), tmp_path / "a.png").read_bytes()
    )
    whole[len(whole) // 2] ^= 255
    (tmp_path / "b.png").write_bytes(whole)
    assert "damaged or cut off" in message(tmp_path / "b.png")


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(np.zeros((30, 40), dtype=np.uint8), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert "too many pixels" in message(path)


def test_float_and_32_bit_pictures(tmp_path: Path) -> None:
    assert "floating-point" in message(save(np.zeros((2, 2), dtype=np.float32), tmp_path / "f.tif"))
    assert "32-bit" in message(save(np.full((2, 2), 70000, dtype=np.int32), tmp_path / "i.tif"))


def test_masks_with_stored_class_numbers(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 2], [255, 3, 20]], dtype=np.uint8)
    assert np.array_equal(read_mask(save(classes, tmp_path / "grey.png")), classes)
    palette = Image.fromarray(classes, "P")
    palette.putpalette([channel for colour in reversed(voc_palette(256)) for channel in colour])
    for colours in (None, VOC):  # a palette's colours are never used, with a colour map or without
        read = read_mask(save(palette, tmp_path / "palette.png"), colours)
        assert read.dtype == np.uint8 and np.array_equal(read, classes)
    deep = np.array([[0, 300], [65535, 7]], dtype=np.uint16)
    read = read_mask(save(deep, tmp_path / "deep.png"))
    assert read.dtype == np.int32 and np.array_equal(read, deep)
    assert read_mask(save(classes.astype(np.uint16), tmp_path / "low.png")).dtype == np.uint8
    assert read_mask(save(Image.fromarray(classes > 1), tmp_path / "two.png")).tolist() == [
        [0, 0, 1],
        [1, 1, 1],
    ]


@pytest.mark.parametrize("labels", [VOC, CAMVID], ids=["voc", "camvid"])
def test_colour_masks(tmp_path: Path, labels: Labels) -> None:
    classes = RNG.integers(0, len(labels), (13, 17)).astype(np.uint8)
    classes[3, 4:9] = 255
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(labels)], table[255] = labels.palette, labels.void_colours[0]
    assert np.array_equal(read_mask(save(table[classes], tmp_path / "rgb.png"), labels), classes)
    rgba = np.dstack([table[classes], np.full(classes.shape, 255, dtype=np.uint8)])
    assert np.array_equal(read_mask(save(rgba, tmp_path / "rgba.png"), labels), classes)


def test_colour_masks_that_cannot_be_used(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[2, 1:3] = (12, 3, 4)
    path = save(pixels, tmp_path / "rgb.png")
    assert "colour (12, 3, 4) is not in the colour map (2 unknown pixels)" in message(path, VOC, mask=True)
    assert "labelmap.txt" in message(path, mask=True)
    assert "save it as PNG" in message(save(pixels[..., 0], tmp_path / "m.jpg"), mask=True)
    assert "cannot hold a mask" in message(save(np.zeros((2, 2), np.float32), tmp_path / "f.tif"), mask=True)


def test_grey_saved_as_rgb_is_taken_as_class_numbers(tmp_path: Path) -> None:
    classes = RNG.integers(0, 5, (6, 5), dtype=np.uint8)
    assert np.array_equal(read_mask(save(np.dstack([classes] * 3), tmp_path / "rgb.png")), classes)


def test_voc_colours_are_the_published_ones() -> None:
    # the devkit's own map: https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/ (VOCdevkit, VOClabelcolormap.m)
    assert (
        VOC.palette[1] == (128, 0, 0)
        and VOC.palette[15] == (192, 128, 128)
        and VOC.palette[20] == (0, 64, 128)
    )
    assert voc_palette(256)[255] == (224, 224, 192) == VOC.void_colours[0]
    assert len(set(voc_palette(256))) == 256


def test_labels_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="2 class names but 1 colours"):
        Labels(("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="also the number of a class"):
        Labels(("a", "b"), ((0, 0, 0), (1, 1, 1)), ignore_index=1)
    assert Labels.named([str(i) for i in range(255)]).ignore_index == 255
    assert Labels.named([str(i) for i in range(256)]).ignore_index == 65535
