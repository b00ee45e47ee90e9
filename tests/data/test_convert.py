"""COCO, LabelMe and CVAT exports become folders whose masks are those counted by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_layouts import write_picture
from PIL import Image

from atrous.cli import main
from atrous.data import open_dataset, read_mask
from atrous.data.check import check_dataset
from atrous.data.convert import convert
from atrous.errors import InputError

SIZE = (8, 10)  # height, width


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def corners(x0: int, y0: int, x1: int, y1: int) -> list[int]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0, 1, ... in a flat mask, by counting."""
    lengths, value = [0], 0
    for pixel in mask.astype(int).tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def coco(**changes: Any) -> dict[str, Any]:
    """Two pictures; in a.jpg a large dog (id 18) over which a small cat (id 17) lies, and a crowd (id 1) below."""
    crowd = np.zeros(SIZE, bool)
    crowd[:3] = True
    content: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 8, "width": 10},
            {"id": 9, "file_name": "deep/b.jpg", "height": 8, "width": 10},
        ],
        "categories": [
            {"id": 18, "name": "dog"},
            {"id": 1, "name": "person, or so"},
            {"id": 17, "name": "cat"},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 17, "iscrowd": 0, "segmentation": [corners(4, 4, 6, 6)]},
            {
                "image_id": 7,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": list(SIZE), "counts": runs(crowd.ravel(order="F"))},
            },
            {
                "image_id": 7,
                "category_id": 18,
                "iscrowd": 0,
                "segmentation": [corners(2, 2, 7, 7), corners(8, 0, 9, 1)],
            },
            {"image_id": 7, "category_id": 17, "bbox": [0, 0, 1, 1]},
        ],
    }
    return {**content, **changes}


def write_coco(root: Path, content: Any) -> Path:
    write_picture(root / "images" / "a.jpg", 1, SIZE)
    write_picture(root / "images" / "deep" / "b.jpg", 2, SIZE)
    (root / "instances.json").write_text(json.dumps(content))
    return root / "instances.json"


def test_coco(tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    done = convert(write_coco(tmp_path, coco()), out, progress=lambda *step: seen.append(step))
    expected = np.zeros(SIZE, int)
    expected[:3] = 1  # the crowd, below all though it is larger than nothing
    expected[2:7, 2:7] = expected[0, 8] = 3  # dog: the second part of the outline counts too
    expected[4:6, 4:6] = 2  # cat, the smaller
    assert (read_mask(out / "masks" / "a.png") == expected).all()
    assert not read_mask(out / "masks" / "deep_b.png").any()
    assert done.classes == {"background": 0, "person or so": 1, "cat": 2, "dog": 3}
    assert done.left_out == {"annotations without an outline": 1} and seen == [(1, 2), (2, 2)]
    assert (out / "images" / "a.jpg").read_bytes() == (tmp_path / "images" / "a.jpg").read_bytes()
    with Image.open(out / "masks" / "a.png") as saved:
        assert saved.mode == "P" and saved.convert("RGB").getpixel((2, 3)) == (128, 128, 0)  # VOC's colour 3
    assert open_dataset(out).labels.names == ("background", "person or so", "cat", "dog")
    assert check_dataset(out).ok


def test_a_crowd_lies_below_larger_things(tmp_path: Path) -> None:
    content = coco()
    content["annotations"][1]["segmentation"]["counts"] = runs(np.arange(80) == 2 * 8 + 2)  # x 2, y 2
    convert(write_coco(tmp_path, content), tmp_path / "out")
    assert read_mask(tmp_path / "out" / "masks" / "a.png")[2, 2] == 3


def test_cvat(tmp_path: Path) -> None:
    rle = ", ".join(map(str, runs(np.array([[1, 1, 0], [0, 1, 1]]).ravel())))
    (tmp_path / "annotations.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels>
  <label><name>tree</name></label><label><name>ant</name></label><label><name>ignore</name></label>
</labels></job></meta>
<image id="0" name="one/a.png" width="10" height="8">
  <box label="tree" xtl="1.0" ytl="1.0" xbr="4.0" ybr="3.0" z_order="5"/>
  <polygon label="Zebra" points="0.0,0.0;6.0,0.0;6.0,6.0;0.0,6.0" z_order="1"/>
  <mask label="tree" rle="{rle}" left="6" top="5" width="3" height="2" z_order="0"/>
  <ellipse label="ignore" cx="8" cy="2" rx="1.2" ry="1.2" rotation="30" z_order="2"/>
  <polyline label="tree" points="0,0;9,9"/>
</image></annotations>"""
    )
    write_picture(tmp_path / "images" / "one" / "a.png", 1, SIZE)
    done = convert(tmp_path, tmp_path / "out", link=True)
    expected = np.zeros(SIZE, int)
    expected[:6, :6] = 1  # Zebra: capitals come first
    expected[1:3, 1:4] = 3  # tree, of a higher z_order
    expected[5, 6:8] = expected[6, 7:9] = 3
    expected[1:3, 7:9] = 255
    assert (read_mask(tmp_path / "out" / "masks" / "one_a.png") == expected).all()
    assert done.classes == {"background": 0, "Zebra": 1, "ant": 2, "tree": 3} and done.ignored == ["ignore"]
    assert done.left_out == {"lines": 1}
    assert (tmp_path / "out" / "images" / "one_a.png").is_symlink()


def labelme(path: Path, shapes: list[dict[str, Any]], picture: str, data: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5", "shapes": shapes, "imagePath": picture, "imageData": data}
    path.write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}))


def shape(label: str, kind: str | None, points: list[list[float]], **more: str) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **more}


def png(array: np.ndarray, path: Path) -> str:
    Image.fromarray(array).save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    path.unlink()
    return text


def test_labelme(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_picture(tmp_path / "in" / "photos" / "a.png", 1, SIZE)
    patch = png(np.array([[255, 0], [255, 255]], np.uint8), source / "patch.png")
    labelme(
        source / "a.json",
        [
            shape("dog", None, [[0, 0], [5, 0], [5, 5], [0, 5]]),
            shape("cat", "rectangle", [[4, 3], [1, 1]]),  # any two corners
            shape("_background_", "circle", [[8, 2], [9.2, 2]]),
            shape("dog", "circle", [[8, 6], [8, 7.2]]),
            shape("cat", "linestrip", [[0, 0], [9, 9]]),
            shape("cat", "mask", [[0, 6], [1, 7]], mask=patch),
        ],
        r"photos\a.png",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    labelme(
        source / "sub" / "b.json",
        [shape("__ignore__", "point", [[1, 1]])],
        "gone.png",
        png(pixels, tmp_path / "x.png"),
    )
    done = convert(source, tmp_path / "out")
    expected = np.zeros(SIZE, int)
    expected[:5, :5] = 2
    expected[1:3, 1:4] = 1
    expected[5:7, 7:9] = 2  # of radius 1.2: the four centres at distance 0.71
    expected[6:8, 0] = expected[7, 1] = 1
    assert (read_mask(tmp_path / "out" / "masks" / "a.png") == expected).all()
    assert done.classes == {"background": 0, "cat": 1, "dog": 2}
    assert done.left_out == {"lines": 1, "points": 1} and done.pictures == 2
    with Image.open(tmp_path / "out" / "images" / "sub_b.png") as inside:
        assert (np.asarray(inside) == pixels).all()


def test_everything_wrong_is_said_at_once_and_nothing_written(tmp_path: Path) -> None:
    content = coco()
    content["images"] += [{"id": 1, "file_name": "gone.jpg", "height": 8, "width": 10}, {"id": 2}]
    content["images"][1]["height"] = 9
    content["annotations"] += [
        {"image_id": 7, "category_id": 99, "segmentation": [[0, 0, 1, 1, 0, 1]]},
        {"image_id": 77, "category_id": 17, "segmentation": [[0, 0, 1, 1, 0, 1]]},
    ]
    path, out = write_coco(tmp_path, content), tmp_path / "out"
    lines = complaint(lambda: convert(path, out)).splitlines()
    assert [line for line in lines if "gone.jpg: the picture was not found" in line]
    assert [line for line in lines if "image 3: needs id, file_name" in line]
    assert [line for line in lines if "b.jpg: the picture is 10x8, its annotations are for 10x9" in line]
    assert [line for line in lines if "annotation 4: category_id 99 is not" in line]
    assert [line for line in lines if "annotation 5: image_id 77 is not" in line]
    assert len(lines) == 6 and "nothing was written; --skip_broken" in lines[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "instances.json"]
    done = convert(path, out, skip_broken=True)
    assert done.pictures == 1 and len(done.problems) == 5


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [8, 10], "counts": [79]}, "do not add up to 10x8"),
        ({"size": [8, 11], "counts": [88]}, "which the picture has not"),
        ({"size": [8, 10], "counts": "`"}, "cut off"),
        ({"size": [8, 10]}, "without size and counts"),
        ([[0, 0, 1, 1]], "a polygon of 2 points"),
        ([[0, 0, 1, 1, 2]], "no pairs"),
        ([["a", 0, 1, 1, 2, 2]], "no numbers"),
        ([[float("nan"), 0, 1, 1, 2, 2]], "not finite"),
        ("here", "neither polygons nor run lengths"),
    ],
)
def test_damaged_shapes(tmp_path: Path, segmentation: Any, message: str) -> None:
    content = coco()
    content["annotations"][0]["segmentation"] = segmentation
    path, out = write_coco(tmp_path, content), tmp_path / "out"
    text = complaint(lambda: convert(path, out))
    assert text.startswith("a.jpg: annotation 0: ") and message in text and "\n" not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "instances.json"]


def test_sources_that_are_refused(tmp_path: Path) -> None:
    def refused(source: Path, **options: Any) -> str:
        text = complaint(lambda: convert(source, tmp_path / "out", **options))
        assert "\n" not in text and not (tmp_path / "out").exists()
        return text

    path = write_coco(tmp_path / "coco", coco())
    whole = path.read_text()
    path.write_text(whole[:-30])
    assert f"{path}: cannot be read as JSON (line 1: " in refused(path)
    path.write_text(json.dumps(coco(categories=[{"id": 1}])))
    assert "categories: each needs an id and a name" in refused(path)
    path.write_text("[" * 100_000)
    assert "cannot be read as JSON" in refused(path)
    path.write_text('{"images": [], "annotations": 3}')
    assert "without the lists" in refused(path)
    path.write_text("[]")
    assert "not understood; understood are" in refused(path)
    path.write_text(whole)
    assert "no such folder of pictures" in refused(path, images=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no annotations here" in refused(tmp_path / "empty")
    assert "gives one" not in refused(path, images=tmp_path / "empty") and "--images" in refused(
        path, images=tmp_path / "empty"
    )
    (tmp_path / "coco" / "second.json").write_text(whole)
    assert "2 JSON files: give one of them" in refused(tmp_path / "coco")
    assert "no such file" in refused(tmp_path / "gone.json")
    xml = tmp_path / "annotations.xml"
    for text, message in (
        ("<annotations><image", "cannot be read as XML"),
        ("<annotations><track/></annotations>", "CVAT for images 1.1"),
        ("<html/>", "<annotations> with <image> is expected"),
        ('<annotations><image id="0" name="a"/></annotations>', "image 0: needs name, width and height"),
    ):
        xml.write_text(text)
        assert message in refused(xml)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path, out = write_coco(tmp_path, coco()), tmp_path / "out"
    out.mkdir()
    convert(path, out)  # an empty folder is none that could be harmed
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    assert f"{out}: exists already" in complaint(lambda: convert(path, out))
    assert before == sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))


def test_train_and_val_are_two_commands(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "coco", coco())
    for split in ("train", "val"):
        convert(path, tmp_path / "mine" / split)
    (tmp_path / "mine" / "classes.txt").write_text((tmp_path / "mine" / "train" / "classes.txt").read_text())
    train, val = (open_dataset(tmp_path / "mine", split) for split in ("train", "val"))
    assert len(train) == len(val) == 2 and train.labels.names[1:] == ("person or so", "cat", "dog")
    assert train.labels == val.labels


def test_pictures_of_one_name(tmp_path: Path) -> None:
    content = coco()
    content["images"][1]["file_name"] = "a.png"
    write_picture(tmp_path / "images" / "a.png", 3, SIZE)
    path = write_coco(tmp_path, content)
    assert "a.png: would be called a, as a.jpg is already" in complaint(
        lambda: convert(path, tmp_path / "out")
    )


def test_more_than_255_classes(tmp_path: Path) -> None:
    content = coco(categories=[{"id": number, "name": f"n{number}"} for number in range(300)])
    content["annotations"][0]["category_id"] = 299
    done = convert(write_coco(tmp_path, content), tmp_path / "out")
    assert done.void == 65535 and read_mask(tmp_path / "out" / "masks" / "a.png")[4, 4] == 300
    assert len(open_dataset(tmp_path / "out").labels) == 301


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_coco(tmp_path, coco()), tmp_path / "out"
    main(["data", "convert", str(path), str(out)])
    shown = capsys.readouterr().out
    assert f"COCO: 2 pictures with masks in {out}" in shown
    assert "classes: 0 background, 1 person or so (id 1), 2 cat (id 17), 3 dog (id 18); ignored: 255" in shown
    assert "1 annotations without an outline" in shown
    main(["data", "check", str(out)])
    for words, message in (
        (["convert", str(path)], "where to?"),
        (["check", str(out), "x"], "takes one folder"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *words])
        assert stopped.value.code == 2 and message in capsys.readouterr().err


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    return [pair for key in keys for pair in [(node, key), *places(node[key])]]


def test_damage_never_ends_in_another_error(tmp_path: Path) -> None:
    """Copies with a value exchanged, or cut off, convert or are refused; no part of a folder stays."""
    one = tmp_path / "labelme"
    dog, triangle = shape("dog", "circle", [[8, 6], [8, 7]]), shape("x", None, [[0, 0], [5, 0], [5, 5]])
    labelme(one / "a.json", [dog, triangle], "a.jpg")
    write_picture(one / "a.jpg", 1, SIZE)
    write_picture(tmp_path / "cvat" / "images" / "a.jpg", 1, SIZE)
    xml = tmp_path / "cvat" / "annotations.xml"
    xml.write_text(
        '<annotations><image id="0" name="a.jpg" width="10" height="8"><box label="t" xtl="1" ytl="1" xbr="4" '
        'ybr="3"/><mask label="t" rle="1, 2, 3" left="6" top="5" width="3" height="2" z_order="0"/></image>'
        "</annotations>"
    )
    rng = np.random.default_rng(0)
    odd = [None, "x", -1, [], {}, 10**30, float("inf"), True, 0.5, [[1]], {"size": 3}, "a\0b", "../a.jpg"]
    outcomes = {True: 0, False: 0}
    for path in (write_coco(tmp_path / "coco", coco()), one / "a.json", xml):
        text = path.read_text()
        for _ in range(80):
            if path == xml:
                digits = [place for place, letter in enumerate(text) if letter.isdigit()]
                place = digits[int(rng.integers(len(digits)))]
                changed = (
                    text[:place]
                    + str(rng.choice(["-", "9999999999", "x", "", "1e9", "nan"]))
                    + text[place + 1 :]
                )
            else:
                content = json.loads(text)
                found = places(content)
                node, key = found[int(rng.integers(len(found)))]
                node[key] = odd[int(rng.integers(len(odd)))]
                changed = json.dumps(content)
            path.write_text(changed if rng.random() < 0.95 else changed[: int(rng.integers(len(changed)))])
            try:
                convert(path.parent, tmp_path / "out")
                outcomes[True] += 1
                for file in sorted((tmp_path / "out").rglob("*"), reverse=True):
                    file.rmdir() if file.is_dir() else file.unlink()
            except InputError:
                outcomes[False] += 1
            assert {p.name for p in tmp_path.iterdir()} <= {"coco", "cvat", "labelme", "out"}
    assert min(outcomes.values()) > 40
