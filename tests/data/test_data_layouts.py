"""Folders, VOC and CamVid: which files are found and paired, and what is said where they cannot be."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atrous.data import CAMVID, VOC, Labels, Pair, SegmentationDataset, find_format, open_dataset
from atrous.data.layout import files_by_name, pair_files
from atrous.data.splits import seeded_names
from atrous.errors import InputError

SHARED = Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"


def picture(path: Path, size: tuple[int, int] = (5, 7), value: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (5, 7), top: int = 2) -> Path:
    """Class numbers 0..top, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) % (top + 1)
    Image.fromarray(values).save(path)
    return path


def make_folder(
    root: Path, names: list[str], images: str = "images", masks: str = "masks", top: int = 2
) -> Path:
    for name in names:
        picture(root / images / f"{name}.jpg")
        mask(root / masks / f"{name}.png", top=top)
    return root


def complaint(action: Callable[[], object], file: Path) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def names(dataset: SegmentationDataset) -> list[str]:
    return [pair.name for pair in dataset.pairs]


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


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (("train/images", "train/masks"), ("val/images", "val/masks")),
        (("images/train", "masks/train"), ("images/val", "masks/val")),
        (("images/training", "annotations/training"), ("images/validation", "annotations/validation")),
        (("training/imgs", "training/labels"), ("valid/imgs", "valid/labels")),
    ],
)
def test_split_by_folders(tmp_path: Path, train: tuple[str, str], val: tuple[str, str]) -> None:
    make_folder(tmp_path, ["a", "b", "deep/c"], *train, top=1)
    make_folder(tmp_path, ["v"], *val, top=3)
    one, two = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "val")
    assert names(one) == ["a", "b", "deep/c"] and names(two) == ["v"]
    # as many classes as the highest value of both parts asks for
    assert one.labels == two.labels == Labels.named(["class_0", "class_1", "class_2", "class_3"])
    assert "no test part" in complaint(lambda: open_dataset(tmp_path, "test"), tmp_path)


@pytest.mark.parametrize("layout", ["{}/images {}/masks", "images/{} masks/{}"])
def test_val_is_drawn_from_a_train_folder_alone(tmp_path: Path, layout: str) -> None:
    for part, files in (("train", "abcdefghij"), ("test", "klm")):
        make_folder(tmp_path, list(files), *layout.format(part, part).split())
    parts = {split: names(open_dataset(tmp_path, split)) for split in ("train", "val", "test")}
    assert sorted(parts["train"] + parts["val"]) == list("abcdefghij") and len(parts["val"]) == 1
    assert parts["test"] == list("klm")
    everything = names(open_dataset(tmp_path, "all"))
    assert sorted(everything) == [*(f"test/{n}" for n in "klm"), *(f"train/{n}" for n in "abcdefghij")]


def test_one_part_alone_is_read_and_no_other(tmp_path: Path) -> None:
    for part in ("val", "test"):
        root = make_folder(tmp_path / part, ["a", "b"], f"{part}/images", f"{part}/masks")
        assert names(open_dataset(root, part)) == ["a", "b"]
        assert len(open_dataset(root, part).labels) == 3
        assert f"no train part, only {part}" in complaint(lambda root=root: open_dataset(root), root)


def test_a_test_folder_beside_pictures_without_parts(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b", "c"])
    make_folder(tmp_path, ["t"], "images/test", "masks/test")
    train, val = (set(names(open_dataset(tmp_path, split))) for split in ("train", "val"))
    assert train | val == {"a", "b", "c"} and not train & val
    assert names(open_dataset(tmp_path, "test")) == ["t"]


def test_a_picture_alone_is_measured_whole(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a"])
    assert names(open_dataset(tmp_path, "all")) == ["a"]
    assert "at least two are needed" in complaint(lambda: open_dataset(tmp_path), tmp_path)


def test_split_by_lists(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b", "c", "deep/d"])
    (tmp_path / "train.txt").write_text("c\na.jpg\n\n")
    (tmp_path / "val.txt").write_text("images/deep/d.jpg masks/deep/d.png\n".replace("images/", ""))
    assert names(open_dataset(tmp_path, "train")) == ["c", "a"]
    assert names(open_dataset(tmp_path, "val")) == ["deep/d"]
    (tmp_path / "val.txt").write_text("a\nb\n")
    assert "a also in train.txt" in complaint(lambda: open_dataset(tmp_path), tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text("z\n")
    assert "no picture with a mask called z" in complaint(
        lambda: open_dataset(tmp_path, "val"), tmp_path / "val.txt"
    )


@pytest.mark.parametrize(
    "given", ["train test", "test", "val test", "val", "train", "train val test", "Validation"]
)
def test_what_no_list_says(tmp_path: Path, given: str) -> None:
    """Brute force: no picture twice, no listed test picture in train or val, every one of no list in train or val."""
    everything = [f"p{number:02d}" for number in range(12)]
    make_folder(tmp_path, everything)
    listed = {"train": everything[:6], "val": everything[6:8], "test": everything[8:11]}
    listed = {name: listed[{"Validation": "val"}.get(name, name)] for name in given.split()}
    for name, files in listed.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(files))
    if "Validation" in listed:
        listed["val"] = listed.pop("Validation")
    found = {split: names(open_dataset(tmp_path, split)) for split in ("train", "val")}
    assert set(found["train"]) | set(found["val"]) == (
        {*listed["train"], *listed.get("val", [])}
        if "train" in listed
        else {*everything} - {*listed.get("test", [])}
    )
    assert not {*found["train"]} & {*found["val"]}
    for split in listed:
        if split != "train" or "val" in listed:
            assert names(open_dataset(tmp_path, split)) == listed[split]
    assert sorted(names(open_dataset(tmp_path, "all"))) == everything
    if "test" not in listed:
        assert "no test part" in complaint(lambda: open_dataset(tmp_path, "test"), tmp_path)


def test_no_picture_of_a_listed_test_is_trained_on(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a", "b", "c"])
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "test.txt").write_text("c\nb\n")
    assert "b also in train.txt" in complaint(lambda: open_dataset(tmp_path), tmp_path / "test.txt")
    (tmp_path / "train.txt").unlink(), (tmp_path / "test.txt").write_text("c\ngone\n")
    assert "called gone" in complaint(lambda: open_dataset(tmp_path), tmp_path / "test.txt")


def test_names_with_spaces_in_lists(tmp_path: Path) -> None:
    make_folder(tmp_path, ["my photo", "my", "my  other photo", "z"])
    (tmp_path / "train.txt").write_text("my photo.jpg\nmy  other photo.jpg my  other photo.png\n")
    (tmp_path / "val.txt").write_text('my masks/my.png\n"z"\n')
    assert names(open_dataset(tmp_path)) == ["my photo", "my  other photo"]
    assert names(open_dataset(tmp_path, "val")) == ["my", "z"]


def test_seeded_split(tmp_path: Path) -> None:
    make_folder(tmp_path, [f"p{number:02d}" for number in range(20)])
    train, val = names(open_dataset(tmp_path, "train")), names(open_dataset(tmp_path, "val"))
    assert len(train) == 18 and len(val) == 2
    assert not set(train) & set(val) and len({*train, *val}) == 20
    assert names(open_dataset(tmp_path, "val")) == val
    assert len(open_dataset(tmp_path, "val", val_fraction=0.5)) == 10
    other_seeds = {tuple(names(open_dataset(tmp_path, "val", seed=seed))) for seed in range(5)}
    assert len(other_seeds) == 5
    assert "between 0 and 1" in complaint(lambda: open_dataset(tmp_path, val_fraction=1.5), Path("1.5"))


def test_seeded_split_by_hand() -> None:
    assert seeded_names(list("abcdefghij"), 0.3, seed=0) == seeded_names(list("jihgfedcba"), 0.3, seed=0)
    assert len(seeded_names(["a", "b"], 0.01, 0)) == 1 and len(seeded_names(["a", "b"], 0.99, 0)) == 1
    # few names change sides when pictures are added
    before = seeded_names([f"n{i}" for i in range(100)], 0.1, 0)
    after = seeded_names([f"n{i}" for i in range(110)], 0.1, 0)
    assert len(before & after) >= 8


def test_pairs_keep_folders_and_know_suffixes(tmp_path: Path) -> None:
    for name in ("one/a", "two/a", "b", "c.v2"):
        picture(tmp_path / "i" / f"{name}.jpg")
    for name in ("one/a", "two/a_mask", "b_labelIds", "c.v2"):
        mask(tmp_path / "m" / f"{name}.png")
    (tmp_path / "i" / "notes.txt").write_text("not a picture")
    pairs, lone = pair_files(tmp_path / "i", tmp_path / "m")
    assert lone == []
    found = {pair.name: pair.mask.relative_to(tmp_path / "m").as_posix() for pair in pairs}
    assert found == {
        "one/a": "one/a.png",
        "two/a": "two/a_mask.png",
        "b": "b_labelIds.png",
        "c.v2": "c.v2.png",
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
    assert "no pictures with masks found" in complaint(lambda: open_dataset(tmp_path), tmp_path)
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


def make_voc(root: Path) -> Path:
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("2007_1", "2007_2", "2008_3", "2008_4"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        mask(root / "SegmentationClass" / f"{name}.png", top=20)
    (lists / "train.txt").write_text("2007_1\n2007_2\n")
    (lists / "val.txt").write_text("2008_3\n")
    return root


def test_voc(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "VOCdevkit" / "VOC2012")
    for given in (tmp_path, tmp_path / "VOCdevkit", root):
        assert find_format(given) == "voc"
        assert names(open_dataset(given, "train")) == ["2007_1", "2007_2"]
    assert open_dataset(root, "val").labels == VOC
    lists = root / "ImageSets" / "Segmentation"
    assert "trainaug.txt" in complaint(lambda: open_dataset(root, "train_aug"), lists)
    (lists / "trainaug.txt").write_text("/JPEGImages/2007_1.jpg /SegmentationClassAug/2007_1.png\n")
    assert open_dataset(root, "train_aug").pairs[0].mask.parent.name == "SegmentationClass"
    mask(root / "SegmentationClassAug" / "2007_1.png", top=20)
    assert open_dataset(root, "train_aug").pairs[0].mask.parent.name == "SegmentationClassAug"


def test_some_classes_of_voc(tmp_path: Path) -> None:
    """Those kept are numbered anew in VOC's order, whatever the order asked for; the others are background."""
    root = make_voc(tmp_path)
    every = np.resize(np.array([*range(21), 255], np.uint8), 40 * 60).reshape(40, 60)
    Image.fromarray(every).save(root / "SegmentationClass" / "2008_3.png")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "JPEGImages" / "2008_3.jpg")
    data = open_dataset(root, "val", classes=["sheep", "cat"])
    assert data.labels.names == ("background", "cat", "sheep")
    assert data.labels.palette == (VOC.palette[0], VOC.palette[8], VOC.palette[17])
    expected = np.select([every == 8, every == 17, every == 255], [1, 2, 255], 0)
    assert np.array_equal(data.arrays(0)[1], expected)
    told = "0-7, 9-16, 18-20 -> 0 (background), 8 -> 1 (cat), 17 -> 2 (sheep); ignored: 255"
    assert data.describe() == f"mask values: {told}"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "SegmentationClass" / "2008_3.png")
    told = open_dataset(root, "val", classes=["sheep", "cat"]).describe()
    assert told.startswith("colours 0,0,0 -> 0 (background); 128,0,0 -> 0 (background); 0,128,0 -> 0")
    assert "64,0,0 -> 1 (cat)" in told and told.endswith("; ignored: 224,224,192")
    with pytest.raises(InputError, match="did you mean 'sheep'"):
        open_dataset(root, "val", classes=["sheeep"])


def test_voc_splits_must_be_disjoint(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").write_text("2008_3\n2007_2\n")
    for split in ("train", "val"):
        assert "1 pictures are in both" in complaint(lambda split=split: open_dataset(root, split), root)
    with pytest.raises(InputError, match="2007_2"):
        open_dataset(root, "train")


@pytest.mark.parametrize("lists", [["default"], ["Train", "Validation"], ["train", "val", "test"]])
def test_cvat_segmentation_masks_have_their_own_classes(tmp_path: Path, lists: list[str]) -> None:
    """VOC's folders with a labelmap.txt are no VOC: colours are those of the file, lists those that are there."""
    colours = {"background": (0, 0, 0), "road": (128, 64, 128), "car": (0, 0, 142)}
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n"
        + "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in colours.items())
    )
    files = ["f 0", "f_1", "deep/f_2", "f_3", "f_4", "f_5"]
    drawn = np.random.default_rng(0).integers(0, 3, (5, 7))
    for name in files:
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        file = tmp_path / "SegmentationClass" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([*colours.values()], np.uint8)[drawn]).save(file)
    of_list = {name: files[place :: len(lists)] for place, name in enumerate(lists)}
    for name, listed in of_list.items():
        lines = [f'"{file}"' if " " in file else file for file in listed]
        (tmp_path / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(lines) + "\n")

    assert find_format(tmp_path) == "folder"
    parts = {split: open_dataset(tmp_path, split) for split in ("train", "val")}
    assert parts["train"].labels.names == ("background", "road", "car")
    assert np.array_equal(parts["val"].arrays(0)[1], drawn)
    if lists == ["default"]:
        assert sorted(names(parts["train"]) + names(parts["val"])) == sorted(files) and len(parts["val"]) == 1
    else:
        assert [names(parts[split]) for split in ("train", "val")] == [*of_list.values()][:2]
    assert open_dataset(tmp_path, "all", "folder").describe().startswith("colours 0,0,0 -> 0 (background)")
    (tmp_path / "labelmap.txt").unlink()
    assert find_format(tmp_path) == "voc"


def test_voc_with_missing_files(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    gone = root / "JPEGImages" / "2007_2.jpg"
    gone.unlink()
    assert "listed for train but missing" in complaint(lambda: open_dataset(root), gone)
    assert names(open_dataset(root, strict=False)) == ["2007_1"]


def test_camvid(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path, ["a"], split, f"{split}annot", top=11)
    assert find_format(tmp_path) == "camvid"
    dataset = open_dataset(tmp_path, "val")
    assert dataset.labels == CAMVID and dataset.labels.ignore_index == 255 and len(CAMVID) == 11
    assert dataset[0].mask.unique().tolist() == [*range(11), 255]  # the files' 11 is void
    assert "no such folder" in complaint(lambda: open_dataset(tmp_path, "test"), tmp_path / "test")
    picture(tmp_path / "train" / "b.png")
    assert "has no mask" in complaint(lambda: open_dataset(tmp_path), tmp_path / "train" / "b.png")


def test_camvid_in_colours(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "a.png")
        pixels = np.zeros((5, 7, 3), dtype=np.uint8)
        pixels[0], pixels[1] = (64, 128, 64), (192, 0, 128)
        (tmp_path / f"{split}_labels").mkdir()
        Image.fromarray(pixels).save(tmp_path / f"{split}_labels" / "a_L.png")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\nVoid,0,0,0\n")
    sample = open_dataset(tmp_path)[0]
    assert sample.mask[:, 0].tolist() == [0, 1, 255, 255, 255]


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="the CamVid data set is not here")
def test_real_camvid() -> None:
    train, val = (open_dataset(SHARED / "camvid", split) for split in ("train", "val"))
    assert len(train) == 367 and len(val) == 101
    assert not set(names(train)) & set(names(val))
    sample = val[0]
    assert sample.image.shape == (3, 360, 480)
    assert set(sample.mask.unique().tolist()) <= {*range(11), 255}
    sky, road = sample.mask == 0, sample.mask == 3
    rows = torch.arange(360)[:, None].expand(360, 480)
    assert rows[sky].float().mean() < 120 < 240 < rows[road].float().mean()


@pytest.mark.skipif(not (SHARED / "VOCdevkit").is_dir(), reason="the VOC data set is not here")
def test_real_voc() -> None:
    train, val = (open_dataset(SHARED / "VOCdevkit", split) for split in ("train", "val"))
    assert len(train) == 3131 and len(val) == 200 and not set(names(train)) & set(names(val))
    assert train.labels.names[15] == "person"
    index = names(train).index("2007_000063")  # a dog on a chair
    assert train[index].mask.unique().tolist() == [0, 9, 12, 255]
