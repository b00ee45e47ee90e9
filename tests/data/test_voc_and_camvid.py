"""VOC, CamVid and what looks like them: which files are found, and what their classes are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_folders import complaint, make_folder, make_voc, mask, names, picture

from atrous.data import CAMVID, VOC, find_format, open_dataset
from atrous.errors import InputError

SHARED = Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"


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
