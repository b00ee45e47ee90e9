"""Folders: which files are found and paired, and what is said where they cannot be."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_folders import complaint, make_folder, make_voc, mask, names, picture

from atrous.data import Labels, Pair, SegmentationDataset, open_dataset
from atrous.data.layout import files_by_name, pair_files
from atrous.errors import InputError


def test_sample(tmp_path: Path) -> None:
    dataset = open_dataset(make_folder(tmp_path, ["a", "b"]), "train", classes=["x", "y", "z"])
    image, classes, name = dataset[0]
    assert image.shape == (3, 5, 7) and image.dtype == torch.uint8
    assert classes.shape == (5, 7) and classes.dtype == torch.uint8
    assert classes[0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert name == names(dataset)[0] and len(dataset) == 1
    assert dataset.labels == Labels.named(["x", "y", "z"])


def test_transform_is_applied(tmp_path: Path) -> None:
    dataset = open_dataset(
        make_folder(tmp_path, ["a", "b"]), transform=lambda image, mask: (image[:, :2], mask[:2])
    )
    assert dataset[0].image.shape == (3, 2, 7) and dataset[0].mask.shape == (2, 7)


def test_pairs_keep_folders_and_know_suffixes(tmp_path: Path) -> None:
    for name in ("one/a", "two/a", "b", "c.v2", "d", "e", "f", "G"):
        picture(tmp_path / "i" / f"{name}.jpg")
    for name in (
        *("one/a", "two/a_mask", "b_labelIds", "c.v2"),
        *("d_segmentation", "e-Mask", "f.jpg", "f_mask_of_another", "G_GT", "G_seg"),
    ):
        mask(tmp_path / "m" / f"{name}.png")
    (tmp_path / "i" / "notes.txt").write_text("not a picture")
    pairs, lone = pair_files(tmp_path / "i", tmp_path / "m")
    assert lone == [
        f"mask {tmp_path / 'm' / name}.png has no picture" for name in ("G_GT", "f_mask_of_another")
    ]
    found = {pair.name: pair.mask.relative_to(tmp_path / "m").as_posix() for pair in pairs}
    assert found == {
        "one/a": "one/a.png",
        "two/a": "two/a_mask.png",
        "b": "b_labelIds.png",
        "c.v2": "c.v2.png",
        "d": "d_segmentation.png",
        "e": "e-Mask.png",
        "f": "f.jpg.png",
        "G": "G_seg.png",
    }


def test_a_name_of_its_own_comes_before_a_suffix(tmp_path: Path) -> None:
    for name in ("a", "a_gt"):
        picture(tmp_path / "i" / f"{name}.jpg")
    mask(tmp_path / "m" / "a_gt.png")
    pairs, lone = pair_files(tmp_path / "i", tmp_path / "m")
    assert [pair.name for pair in pairs] == ["a_gt"]
    assert lone == [f"picture {tmp_path / 'i' / 'a.jpg'} has no mask"]


def test_linked_folders_are_followed_and_hidden_ones_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", ["a", "more/b"])
    make_folder(tmp_path / "far", ["c", "deep/d"], "i", "m")
    for kind, far in (("images", "i"), ("masks", "m")):
        (root / kind / "linked").symlink_to(tmp_path / "far" / far)
        (root / kind / "again").symlink_to(root / kind)  # loops, straight and by way of another folder
        (tmp_path / "far" / far / "back").symlink_to(root / kind)
        make_folder(root / kind / ".ipynb_checkpoints", ["a", "a-checkpoint"], ".", ".")
    pairs, lone = pair_files(root / "images", root / "masks")
    assert lone == [] and [pair.name for pair in pairs] == ["a", "linked/c", "linked/deep/d", "more/b"]
    assert list(files_by_name(root / "images", ".jpg")) == [pair.name for pair in pairs]


def test_names_with_composed_and_taken_apart_accents_pair(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "caf\u00e9/\u00fc") for form in ("NFC", "NFD"))
    assert composed != apart
    picture(tmp_path / "images" / f"{composed}.jpg"), mask(tmp_path / "masks" / f"{apart}.png")
    pairs, lone = pair_files(tmp_path / "images", tmp_path / "masks")
    assert lone == [] and [pair.name for pair in pairs] == [composed]


def test_unpaired_files(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    lone_picture, lone_mask = picture(tmp_path / "images/x.png"), mask(tmp_path / "masks/y.png")
    text = complaint(lambda: open_dataset(tmp_path), tmp_path)
    assert f"picture {lone_picture} has no mask" in text and f"mask {lone_mask} has no picture" in text
    assert "--data_options.strict false" in text
    loose = open_dataset(tmp_path, "train", strict=False)
    assert len(loose) == 1 and len(loose.unpaired) == 2
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"drawn_{path.name}"))
    for strict in (True, False):  # the check is not strict
        text = complaint(lambda strict=strict: open_dataset(tmp_path, strict=strict), tmp_path)
        assert f"picture {tmp_path / 'images/a.jpg'} has no mask" in text and "and 4 more" in text
        assert f"mask {tmp_path / 'masks/drawn_a.png'} has no picture" in text
    picture(tmp_path / "images/a.png")
    assert "a.jpg has the same name" in complaint(lambda: open_dataset(tmp_path), tmp_path / "images/a.png")


def test_named_folders(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"], "photos", "drawn")
    assert len(open_dataset(tmp_path, images="photos", masks="drawn")) == 1
    assert len(open_dataset(tmp_path, images=tmp_path / "photos", masks=tmp_path / "drawn")) == 1
    assert "no such folder" in complaint(
        lambda: open_dataset(tmp_path, images="x", masks="drawn"), tmp_path / "x"
    )


def test_class_names_from_files(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    (tmp_path / "labelmap.txt").write_text("cat:1,2,3::\ndog:4,5,6::\nbird:7,8,9::\n")
    dataset = open_dataset(tmp_path)
    assert dataset.labels.names == ("cat", "dog", "bird") and dataset.labels.palette[1] == (4, 5, 6)
    (tmp_path / "classes.txt").write_text("car\nroad side\n\nsky\n")
    assert open_dataset(tmp_path).labels == Labels.named(["car", "road side", "sky"])
    assert open_dataset(tmp_path, classes="labelmap.txt").labels.names == ("cat", "dog", "bird")
    (tmp_path / "classes.txt").write_text("car\ncar\n")
    assert "each once" in complaint(lambda: open_dataset(tmp_path), tmp_path / "classes.txt")


def test_colour_masks_need_a_map(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    for name in ("a", "b"):
        pixels = np.zeros((5, 7, 3), dtype=np.uint8)
        pixels[1:3] = (128, 0, 0)
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{name}.png")
    text = complaint(lambda: open_dataset(tmp_path), tmp_path / "masks")
    assert "no colour map" in text and "labelmap.txt" in text
    (tmp_path / "labelmap.txt").write_text("background:0,0,0\nthing:128,0,0\n")
    assert open_dataset(tmp_path)[0].mask.sum() == 14
    (tmp_path / "classes.txt").write_text("background\nthing\n")
    text = complaint(lambda: open_dataset(tmp_path)[0], tmp_path / "masks")
    assert "where there is a classes.txt too, say --data_options.classes labelmap.txt" in text
    assert open_dataset(tmp_path, classes="labelmap.txt")[0].mask.sum() == 14


def test_black_and_white_masks(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    for name in ("a", "b"):
        values = np.zeros((5, 7), dtype=np.uint8)
        values[2] = 255
        Image.fromarray(values).save(tmp_path / "masks" / f"{name}.png")
    assert "{255: 1}" in complaint(lambda: open_dataset(tmp_path), tmp_path)
    dataset = open_dataset(tmp_path, values={255: 1})
    assert len(dataset.labels) == 2 and dataset[0].mask.sum() == 7
    # as it comes from a recipe or a command line
    assert open_dataset(tmp_path, values={"255": 1})[0].mask.sum() == 7


def test_size_mismatch(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    mask(tmp_path / "masks/a.png", (7, 5)), mask(tmp_path / "masks/b.png", (7, 5))
    dataset = open_dataset(tmp_path)
    pair = dataset.pairs[0]
    text = complaint(lambda: dataset[0], pair.mask)
    assert text == f"{pair.mask}: the mask is 5x7 but the picture {pair.image} is 7x5"


@pytest.mark.parametrize("orientation", [1, 6])
def test_size_mismatch_of_a_turned_photo(tmp_path: Path, orientation: int) -> None:
    make_folder(tmp_path, ["a", "b"])
    for name in ("a", "b"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (7, 5) if orientation == 6 else (5, 7)).save(
            tmp_path / f"images/{name}.jpg", exif=exif
        )
    dataset = open_dataset(tmp_path)
    text = complaint(lambda: dataset[0], dataset.pairs[0].mask)
    assert "the mask is 7x5" in text and "is 5x7" in text and ("EXIF" in text) == (orientation == 6)


def test_values_outside_the_classes(tmp_path: Path) -> None:
    dataset = open_dataset(make_folder(tmp_path, ["a", "b"], top=4), classes=["x", "y", "z"])
    text = complaint(lambda: dataset[0], dataset.pairs[0].mask)
    assert "mask values 3 (7 pixels), 4 (7 pixels) outside the 3 classes 0..2 and not 255 (void)" in text


def test_damaged_files_name_themselves(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    dataset = open_dataset(tmp_path)
    dataset.pairs[0].image.write_text("some text")
    assert "not a picture" in complaint(lambda: dataset[0], dataset.pairs[0].image)
    damaged = dataset.pairs[0].mask
    damaged.write_bytes(damaged.read_bytes()[:-25])
    assert "damaged or cut off" in complaint(lambda: open_dataset(tmp_path), damaged)


def test_more_than_255_classes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (2, 3))
    Image.fromarray(np.array([[0, 300, 65535]] * 2, dtype=np.uint16)).save(tmp_path / "m.png")
    pairs = [Pair("a", tmp_path / "a.png", tmp_path / "m.png")]
    labels = Labels.named([str(number) for number in range(301)])
    sample = SegmentationDataset(pairs, labels, "train")[0]
    assert sample.mask.dtype == torch.int32 and sample.mask[0].tolist() == [0, 300, 65535]


@pytest.mark.parametrize("classes", [None, ["x", "y", "z"]])
def test_void_in_16_bits(tmp_path: Path, classes: list[str] | None) -> None:
    """65535 is void, and 255 with it, whether the classes are named or counted."""
    make_folder(tmp_path, ["a", "b"])
    stored = np.array([[0, 1, 2, 65535, 255]], np.uint16).repeat(7, 1).reshape(5, 7)
    for name in ("a", "b"):
        Image.fromarray(stored).save(tmp_path / "masks" / f"{name}.png")
    data = open_dataset(tmp_path, classes=classes)
    assert len(data.labels) == 3 and data.labels.ignore_index == 255
    delivered = data.arrays(0)[1]
    assert delivered.dtype == np.uint8
    assert np.array_equal(delivered, np.where(stored > 2, 255, stored))
    # said otherwise, it is otherwise
    other = open_dataset(tmp_path, classes=["x", "y", "z"], values={65535: 2, 255: 1}).arrays(0)[1]
    assert other.ravel().tolist() == [0] * 7 + [1] * 7 + [2] * 14 + [1] * 7


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none", "no such folder"), (tmp_path, "the folder is empty")):
        text = complaint(lambda path=path: open_dataset(path), path)
        assert what in text and "VOC" in text and "CamVid" in text and "scenes" in text
    (tmp_path / "x.txt").touch()
    assert "a file, not a folder" in complaint(lambda: open_dataset(tmp_path / "x.txt"), tmp_path / "x.txt")
    text = complaint(lambda: open_dataset(tmp_path), tmp_path)
    assert "no pictures with masks found" in text and "--data_options.images and --data_options.masks" in text
    (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
    assert "no picture with a mask" in complaint(lambda: open_dataset(tmp_path), tmp_path)
    make_folder(tmp_path, ["a"])
    assert "at least two are needed" in complaint(lambda: open_dataset(tmp_path), tmp_path)


def test_unknown_names(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"])
    for options, hint in (
        ({"format": "vocc"}, "did you mean 'voc'"),
        ({"split": "vall"}, "did you mean 'val'"),
        ({"val_fractoin": 0.2}, "did you mean 'val_fraction'"),
    ):
        with pytest.raises(InputError, match=hint):
            open_dataset(tmp_path, **options)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("values", [{-1: 0}, {255: -1}, "x", [1], {255: 1.5}, {255: None}, {10**6: 0}, {0: 10**12}]),
        ("classes", [[1, 2], 5, [], ["a", "a"], {"a": 1}]),
        ("val_fraction", ["x", 0, 1, None]),
    ],
)
def test_options_that_mean_nothing(tmp_path: Path, option: str, values: list[object]) -> None:
    make_folder(tmp_path, ["a", "b"])
    for value in values:
        assert option in complaint(
            lambda value=value: open_dataset(tmp_path, **{option: value}), Path(str(value))
        )
    root = make_voc(tmp_path / "voc")
    for value in ([1, 2], "cat", 5):
        assert "like [cat, dog]" in complaint(
            lambda value=value: open_dataset(root, classes=value), Path(str(value))
        )


def test_folders_that_are_called_by_a_number(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b"], "2020", "2021")
    assert len(open_dataset(tmp_path, images=2020, masks=2021)) == 1
