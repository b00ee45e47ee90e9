"""Cityscapes, ADE20K and COCO-Stuff in their own layouts: ids become classes, and shifted ids are noticed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from drawn_layouts import draw_ade20k, draw_cityscapes, draw_coco_stuff, stripes, write_mask, write_picture
from rich.console import Console

from atrous.cli import main
from atrous.data import CAMVID, Labels, SegmentationDataset, find_format, open_dataset
from atrous.data.check import check_dataset
from atrous.data.class_names import ADE20K, COCO_STUFF
from atrous.data.labels import CITYSCAPES
from atrous.data.matfile import read_mat
from atrous.errors import InputError

# id: name, as in cityscapesScripts' table, of those that are evaluated
CITYSCAPES_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
# category id: name, as in COCO's and COCO-Stuff's own lists
COCO_IDS = {
    1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 44: "bottle", 46: "wine glass",
    65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator", 84: "book", 90: "toothbrush",
    92: "banner", 95: "bridge", 157: "sky-other", 182: "wood",
}  # fmt: skip
EVERY_ID = [n for n in range(1, 183) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)]


def named(dataset: SegmentationDataset, raw: np.ndarray, index: int = 0) -> dict[int, str]:
    """{raw value: class name, or "ignored"}, by comparing what is delivered with what was written."""
    mask = dataset.arrays(index)[1]
    names = {}
    for value in np.unique(raw).tolist():
        (found,) = np.unique(mask[raw == value]).tolist()
        names[value] = "ignored" if found == dataset.labels.ignore_index else dataset.labels.names[found]
    return names


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cityscapes_ids(tmp_path: Path) -> None:
    root = draw_cityscapes(tmp_path, range(34))
    assert find_format(root) == "cityscapes"
    data = open_dataset(root)
    assert data.labels is CITYSCAPES and len(data) == 2 and len(open_dataset(root, "val")) == 1
    assert data.name(0) == "aachen/aachen_000000_000000"
    expected = {value: CITYSCAPES_IDS.get(value, "ignored") for value in range(34)}
    assert named(data, stripes(range(34))) == expected
    line = data.describe()
    assert "7-8 -> 0-1 (road, sidewalk)" in line and "11-13 -> 2-4 (building, wall, fence)" in line
    assert "ignored: 0-6, 9-10, 14-16, 18, 29-30" in line and "labelIds" in line


def test_cityscapes_train_ids_where_all_are_there(tmp_path: Path) -> None:
    root = draw_cityscapes(tmp_path, [7, 33])
    draw_cityscapes(root, [*range(19), 255], "labelTrainIds")
    data = open_dataset(root)
    assert "labelTrainIds" in data.describe()
    expected = {**dict(enumerate(CITYSCAPES.names)), 255: "ignored"}
    assert named(data, stripes([*range(19), 255])) == expected
    assert named(open_dataset(root, encoding="labelIds"), stripes([7, 33])) == {7: "road", 33: "bicycle"}
    next((root / "gtFine").rglob("*_labelTrainIds.png")).unlink()
    assert "labelIds" in open_dataset(root).describe()


def test_cityscapes_complaints(tmp_path: Path) -> None:
    root = draw_cityscapes(tmp_path, [7, 34])
    assert "mask values 34 do not exist in ids 0-33" in complaint(lambda: open_dataset(root)[0])
    assert "did you mean 'labelIds'" in complaint(lambda: open_dataset(root, encoding="labelId"))
    next((root / "gtFine" / "train").rglob("*.png")).unlink()
    assert "aachen_000000_000000_leftImg8bit.png has no mask" in complaint(lambda: open_dataset(root))
    assert len(open_dataset(root, strict=False)) == 1
    assert "test: no such folder" in complaint(lambda: open_dataset(root, "test"))


def test_ade20k(tmp_path: Path) -> None:
    root = draw_ade20k(tmp_path, range(151))
    assert find_format(root) == "ade20k"
    data = open_dataset(root)
    assert data.labels is ADE20K and len(data) == 2 and len(open_dataset(root, "val")) == 1
    found = named(data, stripes(range(151)))
    # the benchmark's objectInfo150.txt: 1 wall, 2 building, 3 sky, 13 person, 21 car, 150 flag
    some = {0: "ignored", 1: "wall", 2: "building", 3: "sky", 13: "person", 21: "car", 150: "flag"}
    assert some.items() <= found.items() and len(set(found.values())) == 151
    assert "1-150 -> 0-149 (wall ... flag); ignored: 0" in data.describe()
    assert find_format(draw_ade20k(tmp_path / "ADEChallengeData2016", [0, 1]).parent) == "ade20k"


def test_ade20k_shifted_by_a_tool(tmp_path: Path) -> None:
    data = open_dataset(draw_ade20k(tmp_path, [0, 149, 255]))
    assert named(data, stripes([0, 149, 255])) == {0: "wall", 149: "flag", 255: "ignored"}
    assert "told from the values, not the usual ids" in data.describe()
    both = draw_ade20k(tmp_path / "both", [0, 150, 255])
    message = complaint(lambda: open_dataset(both))
    assert "ids has no 255, shifted has no 150" in message and "ADE_train_00000000.png" in message


def test_own_folder_with_the_same_folder_names(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write_picture(tmp_path / "images" / split / f"{split}.jpg", len(split))
        write_mask(tmp_path / "annotations" / split / f"{split}.png", [0, 1])
    assert find_format(tmp_path) == "folder" and len(open_dataset(tmp_path).labels) == 2


NUMBERINGS: dict[str, tuple[list[int], int]] = {  # values of the ids in `EVERY_ID`, and of unlabelled pixels
    "raw": ([n - 1 for n in EVERY_ID], 255),
    "train_ids": (list(range(171)), 255),
    "raw_from_one": (EVERY_ID, 0),
    "train_ids_from_one": (list(range(1, 172)), 0),
}


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("ending", [".png", "_labelTrainIds.png"])
@pytest.mark.parametrize("year", ["2017", "2014"])
def test_coco_stuff_in_every_numbering(tmp_path: Path, numbering: str, ending: str, year: str) -> None:
    values, void = NUMBERINGS[numbering]
    root = draw_coco_stuff(tmp_path, [*values, void], ending, year)
    assert find_format(root) == "coco_stuff"
    data = open_dataset(root)
    assert data.labels is COCO_STUFF and len(data) == 2 and len(open_dataset(root, "val")) == 1
    found = named(data, stripes([*values, void]))
    by_id = {number: found[value] for number, value in zip(EVERY_ID, values, strict=True)}
    assert COCO_IDS.items() <= by_id.items() and len(set(by_id.values())) == 171
    assert found[void] == "ignored" and "told from the values" in data.describe()


def test_coco_stuff_off_by_one_is_refused_or_noticed(tmp_path: Path) -> None:
    # a dropped id beside 255: neither numbering has both
    root = draw_coco_stuff(tmp_path / "a", [0, 11, 181, 255])
    message = complaint(lambda: open_dataset(root))
    assert "raw has no 11" in message and "train_ids has no 181" in message and "000000000000.png" in message
    # few values, no 255, but zeros: person, or unlabelled in masks shifted by one?
    root = draw_coco_stuff(tmp_path / "b", [0, 3, 9], "_labelTrainIds.png")
    message = complaint(lambda: open_dataset(root))
    assert "--data_options.encoding" in message and "train_ids_from_one" in message
    assert named(open_dataset(root, encoding="train_ids"), stripes([0, 3, 9]))[0] == "person"
    found = named(open_dataset(root, encoding="train_ids_from_one"), stripes([0, 3, 9]))
    assert found == {0: "ignored", 3: "car", 9: "boat"}
    # a later mask in another numbering than the first
    root = draw_coco_stuff(tmp_path / "c", [0, 10, 12, 181, 255])
    write_mask(root / "annotations" / "train2017" / "000000000001.png", [10, 11, 255])
    data = open_dataset(root, encoding="raw")
    assert "mask values 11 do not exist in raw ids 0-181" in complaint(lambda: data[1])


def test_coco_stuff_10k_as_published(tmp_path: Path) -> None:
    raw = stripes([0, *EVERY_ID])
    for folder in ("images", "annotations", "imageLists"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        write_picture(tmp_path / "images" / f"COCO_train2014_{number:012d}.jpg", number)
        path = tmp_path / "annotations" / f"COCO_train2014_{number:012d}.mat"
        scipy.io.savemat(path, {"S": raw, "captions": "a cat", "n": 3.5}, do_compression=number != 1)
    (tmp_path / "imageLists" / "train.txt").write_text(
        "COCO_train2014_000000000000\nCOCO_train2014_000000000001\n"
    )
    (tmp_path / "imageLists" / "test.txt").write_text("COCO_train2014_000000000002\n")
    data = open_dataset(tmp_path)
    assert len(data) == 2 and len(open_dataset(tmp_path, "val")) == 1
    for index in (0, 1):
        found = named(data, raw, index)
        assert COCO_IDS.items() <= found.items() and found[0] == "ignored"
    (tmp_path / "imageLists" / "test.txt").write_text("nowhere\n")
    assert "no picture called nowhere" in complaint(lambda: open_dataset(tmp_path, "val"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float64])
def test_mat_files_that_scipy_wrote(tmp_path: Path, compressed: bool, kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 183, (7, 5)).astype(kind)
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"S": values, "text": "ab"}, do_compression=compressed)
    assert (read_mat(path, "S") == values).all()
    assert "no matrix 'T'" in complaint(lambda: read_mat(path, "T"))
    content = path.read_bytes()
    for cut in (100, 140, len(content) - 9):
        path.write_bytes(content[:cut])
        assert str(path) in complaint(lambda: read_mat(path, "S"))


def test_the_id_map_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw_ade20k(tmp_path / "ade", [0, 1, 150])
    report = check_dataset(root)
    stream = io.StringIO()
    Console(file=stream, width=200).print(report.render())
    assert report.ok and "train, val: mask values (ids 1-150, 0 = other" in stream.getvalue()
    options = "--backbone mobilenet_v2 --crop_size 33 --batch_size 2 --workers 0 --iterations 1 --device cpu"
    main(["train", str(root), "--out", str(tmp_path / "run"), *options.split()])
    assert capsys.readouterr().out.count("1-150 -> 0-149 (wall ... flag); ignored: 0") == 1


def test_describe_of_other_layouts(tmp_path: Path) -> None:
    for name in "ab":
        write_picture(tmp_path / "images" / f"{name}.jpg", ord(name))
        write_mask(tmp_path / "masks" / f"{name}.png", [0, 255])
    data = open_dataset(tmp_path, classes=["ground", "tree"], values={255: 1})
    assert data.describe() == "mask values: 0 -> 0 (ground), 1, 255 -> 1 (tree); ignored: none"
    camvid = tmp_path / "camvid"
    write_picture(camvid / "train" / "a.png")
    write_mask(camvid / "trainannot" / "a.png", range(12))
    line = open_dataset(camvid).describe()
    assert line == f"mask values: 0-10 -> 0-10 ({CAMVID.names[0]} ... {CAMVID.names[-1]}); ignored: 11, 255"
    write_picture(camvid / "trainannot" / "a.png")
    assert (
        open_dataset(camvid).describe().startswith("colours 128,128,128 -> 0 (sky); 128,0,0 -> 1 (building)")
    )
    assert "0 (drawn)" not in open_dataset("scenes").describe()
    assert isinstance(data.labels, Labels)
