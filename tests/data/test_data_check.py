"""The check of a data set: it finds everything at once, and its numbers are those counted by hand."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from atrous.data import open_dataset
from atrous.data.check import CheckReport, check_dataset

SHARED = Path(os.environ.get("ATROUS_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"


def write(root: Path, split: str, name: str, mask: np.ndarray, image: np.ndarray | None = None) -> None:
    seed = int.from_bytes(f"{split}{name}".encode(), "big") % 2**32
    if image is None:
        image = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    for kind, array in (("images", image), ("masks", mask)):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / split / kind / f"{name}.png")


def halves(top: int, bottom: int, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    mask = np.full(size, top, dtype=np.uint8)
    mask[size[0] // 2 :] = bottom
    return mask


def text(report: CheckReport, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(report.render())
    return stream.getvalue()


def test_a_sound_data_set(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\ncar[s]\nsky\n")
    write(tmp_path, "train", "a", halves(0, 1))
    write(tmp_path, "train", "b", halves(0, 255, (4, 10)))
    write(tmp_path, "val", "c", halves(1, 2))
    seen: list[tuple[int, int]] = []
    report = check_dataset(tmp_path, progress=lambda done, of: seen.append((done, of)))
    assert report.ok and report.problems == []
    assert report.warnings == ["class 2 (sky) is in no train picture but in val"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    train = report.splits["train"]
    assert train.pictures == 2 and train.void_pixels == 20
    assert train.pixels.tolist() == [60, 40, 0] and train.present.tolist() == [2, 1, 0]
    assert train.shares.tolist() == [0.6, 0.4, 0.0]
    assert train.smallest == (4, 10) and train.largest == (8, 10)
    # ENet: 1 / ln(1.02 + share); frequencies 60 / 100 and 40 / 80
    assert report.class_weights("enet")[:2] == pytest.approx([1 / np.log(1.62), 1 / np.log(1.42)])
    assert report.class_weights("median")[0] / report.class_weights("median")[1] == pytest.approx(0.5 / 0.6)
    shown = text(report)
    assert "60.00%" in shown and "1 car[s]" in shown and "10x4" in shown and "16.7%" in shown
    assert "1 warnings" in shown and "problems" not in shown


def test_everything_wrong_at_once(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    write(tmp_path, "train", "good", halves(0, 1))
    write(tmp_path, "train", "values", halves(0, 7))
    write(tmp_path, "train", "size", halves(0, 1), np.zeros((9, 9, 3), dtype=np.uint8))
    write(tmp_path, "train", "void", halves(255, 255))
    write(tmp_path, "train", "text", halves(0, 1))
    (tmp_path / "train/images/text.png").write_text("this is text")
    write(tmp_path, "train", "cut", halves(0, 1, (40, 40)))
    cut = tmp_path / "train/masks/cut.png"
    cut.write_bytes(cut.read_bytes()[:60])
    write(tmp_path, "train", "twin", halves(0, 1), np.full((8, 10, 3), 50, dtype=np.uint8))
    write(tmp_path, "train", "twin2", halves(0, 1), np.full((8, 10, 3), 50, dtype=np.uint8))
    write(tmp_path, "val", "leak", halves(0, 1), np.full((8, 10, 3), 50, dtype=np.uint8))
    write(tmp_path, "val", "lone", halves(0, 1))
    (tmp_path / "val/masks/lone.png").unlink()

    report = check_dataset(tmp_path)
    train = tmp_path / "train"
    for problem in (
        f"picture {tmp_path / 'val/images/lone.png'} has no mask",
        f"{train / 'masks/values.png'}: mask value 7 (40 pixels) outside the 2 classes 0..1 and not 255 (void)",
        f"{train / 'masks/size.png'}: the mask is 10x8 but the picture {train / 'images/size.png'} is 9x9",
        f"{train / 'images/text.png'}: not a picture (it begins with b'this is text')",
        "the same picture is in two splits: train/twin, val/leak",
    ):
        assert problem in report.problems
    assert any(str(cut) in line and "damaged or cut off" in line for line in report.problems)
    assert len(report.problems) == 6 and not report.ok
    assert "void: the mask is void throughout" in report.warnings
    assert "train: twin and twin2 are the same picture" in report.warnings
    assert report.splits["train"].pictures == 4 and report.splits["val"].pictures == 1
    assert "6 problems" in text(report) and "2 warnings" in text(report)


@pytest.mark.parametrize(("split", "aim"), [("train", "learn from"), ("val", "measure")])
def test_a_part_without_a_label(tmp_path: Path, split: str, aim: str) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for part in ("train", "val"):
        value = 255 if part == split else 1
        write(tmp_path, part, part, halves(value, value), np.full((8, 10, 3), value, dtype=np.uint8))
    assert check_dataset(tmp_path).problems == [f"{split}: no pixel has a label, there is nothing to {aim}"]


@pytest.mark.parametrize("layout", ["folder", "camvid"])
def test_the_test_part_is_read_too(tmp_path: Path, layout: str) -> None:
    for split, name in (
        ("train", "a"),
        ("train", "b"),
        ("val", "c"),
        ("test", "d"),
        ("test", "e"),
        ("test", "f"),
    ):
        write(tmp_path, split, name, halves(0, 1))
    copied = {"d": "train/images/b.png", "e": "val/images/c.png"}
    for name, of in copied.items():
        (tmp_path / f"test/images/{name}.png").write_bytes((tmp_path / of).read_bytes())
    write(tmp_path, "test", "f", halves(0, 77))
    bad = tmp_path / "test/masks/f.png"
    if layout == "camvid":
        for split in ("train", "val", "test"):
            (tmp_path / split / "masks").rename(tmp_path / f"{split}annot")
            for file in (tmp_path / split / "images").iterdir():
                file.rename(tmp_path / split / file.name)
        bad = tmp_path / "testannot/f.png"
    report = check_dataset(tmp_path)
    leak, value = sorted(report.problems, reverse=True)
    assert leak == "the same picture is in two splits: train/b, test/d"
    assert value.startswith(f"{bad}: mask value 77 (40 pixels) outside")
    assert "the same picture is in two splits: val/c, test/e" in report.warnings  # spoils no training
    assert report.splits["test"].pictures == 2
    assert check_dataset(tmp_path, splits=("train", "val")).ok


def test_a_test_part_is_only_missed_where_it_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "train", "a", halves(0, 1))
    write(tmp_path, "val", "b", halves(0, 1))
    assert check_dataset(tmp_path).ok
    (problem,) = check_dataset(tmp_path, splits=("train", "test")).problems
    assert "no test part" in problem


@pytest.mark.parametrize("white", [255, 65535])
@pytest.mark.parametrize(
    ("file", "text"),
    [("", ""), ("classes.txt", "bg\nfg\n"), ("class_dict.csv", "name,r,g,b\nbg,0,0,0\nfg,255,255,255\n")],
)
def test_black_and_white_masks_are_told_from_void(tmp_path: Path, file: str, text: str, white: int) -> None:
    """What the line says to write makes the problem go."""
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        write(tmp_path, split, name, halves(0, 1))
        drawn = halves(0, 0 if name == "a" else 1).astype(np.uint16) * white
        Image.fromarray(drawn.astype(np.uint8) if white == 255 else drawn).save(
            tmp_path / split / f"masks/{name}.png"
        )
    if file:
        (tmp_path / file).write_text(text)
    (problem,) = check_dataset(tmp_path).problems
    assert f"{tmp_path / 'train/masks/b.png'} has 0 and {white}," in problem
    values = yaml.safe_load(problem.split("--data_options.values ")[1].strip("'"))
    report = check_dataset(tmp_path, values=values)
    assert report.ok and report.splits["train"].pixels.tolist() == [120, 40]


def test_numbers_that_are_no_classes(tmp_path: Path) -> None:
    """One warning that says how to number them, and none for each of the others; done so, there is none."""
    for number, value in enumerate((38, 75, 113)):
        write(tmp_path, "train", str(number), halves(0, value), np.full((8, 10, 3), number, np.uint8))
        write(tmp_path, "val", str(number), halves(255, value), np.full((8, 10, 3), 9 + number, np.uint8))
    (warning,) = check_dataset(tmp_path).warnings
    assert warning.startswith("only 4 of the numbers 0 to 113 are in the masks") and "classes.txt" in warning
    assert warning.endswith("--data_options.values '{38: 1, 75: 2, 113: 3}'")
    again = check_dataset(tmp_path, values={38: 1, 75: 2, 113: 3})
    assert again.labels is not None and len(again.labels) == 4 and again.warnings == [] and again.ok
    (tmp_path / "classes.txt").write_text("".join(f"name {number}\n" for number in range(114)))
    assert len(check_dataset(tmp_path).warnings) == 110


def test_void_before_a_class_of_a_colour_map(tmp_path: Path) -> None:
    """Class numbers that count void too would be taken for the next class: told, with what to say."""
    lines = ["sky:0,0,0::", "void:1,2,3::", "road:128,64,128::", "car:64,0,128::"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    for split, shift in (("train", 0), ("val", 3)):
        write(tmp_path, split, "a", halves(0, 1), np.full((8, 10, 3), shift, np.uint8))
    warning = next(line for line in check_dataset(tmp_path).warnings if "void before a class" in line)
    assert warning.endswith("--data_options.values '{1: 255, 2: 1, 3: 2}'")
    told = open_dataset(tmp_path, values={1: 255, 2: 1, 3: 2})
    assert told.doubt == "" and set(np.unique(told.mask(0))) == {0, 255}
    (tmp_path / "labelmap.txt").write_text("\n".join([*lines[:1], *lines[2:], lines[1]]))  # void is the last
    assert open_dataset(tmp_path).doubt == ""
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    for split in ("train", "val"):
        colours = np.array([[128, 64, 128], [1, 2, 3]], np.uint8)[halves(0, 1)]
        Image.fromarray(colours).save(tmp_path / split / "masks" / "a.png")
    assert open_dataset(tmp_path).doubt == ""  # colours need no numbers


def test_soft_edges_of_black_and_white(tmp_path: Path) -> None:
    for split, shift in (("train", 0), ("val", 3)):
        mask = np.zeros((60, 60), np.uint8)
        mask[:, 30:] = 255
        mask[20:30, 8:48] = np.arange(20, 220, 5)
        write(tmp_path, split, "a", mask, np.full((60, 60, 3), shift, np.uint8))
    (warning,) = check_dataset(tmp_path).warnings
    assert "soft edges: nearly all pixels are 0 and 255, the others have 40 values between" in warning
    assert warning.endswith("--data_options.values '{255: 1}'")


def test_what_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    report = check_dataset(tmp_path / "none")
    assert len(report.problems) == 1 and "no such folder" in report.problems[0]
    assert "1 problems" in text(report)
    write(tmp_path, "images", "x", halves(0, 1))  # not a layout that is understood
    report = check_dataset(tmp_path)
    assert len(report.problems) == 1 and "no pictures with masks found" in report.problems[0]


def test_masks_in_colours_without_a_map(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, split, "a", np.zeros((4, 4), dtype=np.uint8))
        colours = np.zeros((4, 4, 3), dtype=np.uint8)
        colours[0] = (255, 0, 0)
        Image.fromarray(colours).save(tmp_path / split / "masks" / "a.png")
    report = check_dataset(tmp_path)
    assert len(report.problems) == 1 and "no colour map" in report.problems[0]


def test_colours_that_became_palettes(tmp_path: Path) -> None:
    """A colour mask saved again with a palette shows the same, but holds other numbers: each such file is named."""
    colours = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}
    (tmp_path / "labelmap.txt").write_text("".join(f"{n}:{r},{g},{b}\n" for n, (r, g, b) in colours.items()))
    table = np.array([*colours.values()], np.uint8)
    for name, split in (("a", "train"), ("b", "train"), ("c", "train"), ("d", "val")):
        write(tmp_path, split, name, halves(0, 0))
        drawn = np.arange(80).reshape(8, 10) % 3
        Image.fromarray(table[drawn]).save(tmp_path / split / "masks" / f"{name}.png")
    assert check_dataset(tmp_path).problems == check_dataset(tmp_path).warnings == []

    saved = tmp_path / "train/masks/b.png"
    again = Image.open(saved).quantize(8)  # exact: there are three colours
    again.save(saved)
    assert np.array_equal(np.asarray(Image.open(saved).convert("RGB")), table[drawn])
    assert not np.array_equal(np.asarray(Image.open(saved)), drawn)
    report = check_dataset(tmp_path)
    assert len(report.problems) == 1 and str(saved) in report.problems[0]
    assert "save it as RGB" in report.problems[0]
    (warning,) = report.warnings
    assert (
        str(saved) in warning and "class numbers" in warning and str(tmp_path / "val/masks/d.png") in warning
    )
    told = report.id_maps["train"]
    assert (
        told.startswith("colours 128,64,128 -> 0 (road)") and "in other files mask values: 0-2 -> 0-2" in told
    )

    # the map's own numbers, or other colours, are no matter: only the kinds differ
    for palette in ([*colours["road"], *colours["car"]], [1, 2, 3, 4, 5, 6]):
        right = Image.fromarray(halves(0, 1))
        right.putpalette(palette)
        right.save(saved)
        report = check_dataset(tmp_path)
        assert report.problems == [] and len(report.warnings) == 1


def test_long_lists_are_cut(tmp_path: Path) -> None:
    report = CheckReport("x", problems=[f"problem {number}" for number in range(30)])
    shown = text(report)
    assert "problem 19" in shown and "problem 20" not in shown and "... and 10 more" in shown


def test_the_drawn_scenes_are_sound() -> None:
    report = check_dataset("scenes", length=12)
    assert report.ok and report.splits["train"].pictures == 12 and report.warnings == []


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="the CamVid data set is not here")
def test_real_camvid() -> None:
    report = check_dataset(SHARED / "camvid", splits=("val",))
    assert report.ok and report.splits["val"].pictures == 101
    shares = dict(zip(report.labels.names, report.splits["val"].shares, strict=True)) if report.labels else {}
    assert shares["road"] > 0.25 and shares["pedestrian"] < 0.01
