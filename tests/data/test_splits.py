"""Which pictures of a folder are train, val and test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_folders import complaint, make_folder, names

from atrous.data import Labels, open_dataset
from atrous.data.check import check_dataset
from atrous.data.splits import seeded_names


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (("train/images", "train/masks"), ("val/images", "val/masks")),
        (("images/train", "masks/train"), ("images/val", "masks/val")),
        (("images/training", "annotations/training"), ("images/validation", "annotations/validation")),
        (("images/train", "masks/train"), ("images/dev", "masks/dev")),
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


@pytest.mark.parametrize("layout", ["{0}/images {0}/masks", "images/{0} masks/{0}"])
@pytest.mark.parametrize(
    ("kept", "said"), [(0, "have no folder of masks"), (1, "have no folder of pictures")]
)
def test_val_that_is_half_there(tmp_path: Path, layout: str, kept: int, said: str) -> None:
    """Not a part drawn from train in its place; of test the masks may be missing."""
    for part in ("train", "val", "test"):
        make_folder(tmp_path, [f"{part}{n}" for n in range(4)], *layout.format(part).split())
    halves = [[tmp_path / name for name in layout.format(part).split()] for part in ("test", "val")]
    shutil.rmtree(halves[0][1])
    assert names(open_dataset(tmp_path, "val")) == [f"val{n}" for n in range(4)]
    shutil.rmtree(halves[1][1 - kept])
    for split in ("train", "val"):
        assert said in complaint(lambda split=split: open_dataset(tmp_path, split), halves[1][kept])
    (problem,) = check_dataset(tmp_path).problems
    assert said in problem


def test_pictures_in_no_part_are_told(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("val", 1), ("extra", 3)):
        make_folder(tmp_path, [f"{part}{n}" for n in range(count)], f"images/{part}", f"masks/{part}")
    lines = [line for line in check_dataset(tmp_path).warnings if "in no part" in line]
    first = tmp_path / "images" / "extra" / "extra0.jpg"
    assert len(lines) == 1 and lines[0].startswith(
        f"3 pictures are in no part, the first {first}: parts are called"
    )


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
