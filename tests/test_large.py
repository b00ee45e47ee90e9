"""Tiled prediction: equal to the prediction in memory, to the last bit; and what is refused."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import atrous
from atrous.cli import main
from atrous.data import SCENES
from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.large import is_large, segment_large
from atrous.predict import Predictor
from atrous.tiling import slide
from atrous.visualize import VOID_COLOUR
from large_pictures import HEIGHT, ONE_PART, PARTS, WIDTH, pixels, predictor, tifffile, write


@pytest.mark.parametrize("held", [ONE_PART, PARTS])
@pytest.mark.parametrize(
    "options", [{}, {"overlap": 0.6, "average": "logits"}, {"size": (128, 33), "overlap": 0.0}]
)
def test_labels_are_those_in_memory(
    scene_checkpoint: Path, picture: Path, options: dict[str, Any], held: int
) -> None:
    model = predictor(scene_checkpoint, **options)
    seen: list[tuple[int, int]] = []
    written = segment_large(
        model, picture, picture.parent, "out", held=held, progress=lambda done, of, _: seen.append((done, of))
    )
    expected = model.predict(pixels()).labels
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(tifffile.imread(written[0]), expected)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert not list(picture.parent.glob(".*"))


def test_png_too_and_windows_where_the_protocol_names_none(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture smaller than the window on one side, and a protocol that takes pictures whole."""
    monkeypatch.setattr("atrous.predict.WINDOW", (65, 97))
    Image.fromarray(pixels(40, 200)).save(tmp_path / "a.png")
    model = Predictor(scene_checkpoint, device="cpu")
    assert model.protocol.mode == "direct"
    written = segment_large(model, tmp_path / "a.png", tmp_path, "out")
    expected = predictor(scene_checkpoint, size=(65, 97)).predict(pixels(40, 200)).labels
    np.testing.assert_array_equal(tifffile.imread(written[0]), expected)


def test_views_are_taken_of_each_window(scene_checkpoint: Path, tmp_path: Path) -> None:
    net = atrous.load(scene_checkpoint).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def score(window: torch.Tensor) -> torch.Tensor:
        views = []
        for size in ((48, 64), (72, 96)):
            view = F.interpolate(window, size, mode="bilinear", antialias=True)
            plain, mirrored = net(view).softmax(1), net(view.flip(-1)).softmax(1).flip(-1)
            views += [F.interpolate(p, (48, 64), mode="bilinear") for p in (plain, mirrored)]
        return torch.stack(views).mean(0)

    write(tmp_path / "a.tif", pixels(60, 100))
    with torch.no_grad():
        x = (torch.from_numpy(pixels(60, 100)).permute(2, 0, 1).float() / 255 - mean) / std
        expected = slide(score, x[None], (48, 64))[0]
    model = predictor(scene_checkpoint, scales=(1.0, 1.5), flip=True)
    found = tifffile.imread(segment_large(model, tmp_path / "a.tif", tmp_path, "out", held=PARTS)[0])
    best = expected.topk(2, 0).values
    clear = (best[0] - best[1] > 1e-5).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], expected.argmax(0).numpy()[clear])


def test_the_tiff_lies_where_the_picture_lies(scene_checkpoint: Path, tmp_path: Path) -> None:
    values = pixels()
    values[20:70, 30:90] = 3
    tags = [
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
        (34264, 12, 16, tuple(float(i) for i in range(16)), True),
        (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
        (34736, 12, 2, (6378137.0, 298.25), True),
        (50844, 12, 92, tuple(i / 7 for i in range(92)), True),
    ]
    names = "RGF93 / Réunion|WGS 84|  ".encode()  # not ASCII, and GeoKeyDirectory may point to the blanks
    more = [(34737, 2, 0, names, True), (42113, 2, 0, "3", True)]
    write(tmp_path / "map.tif", values, extratags=[*tags, *more])
    labels, overview = segment_large(predictor(scene_checkpoint), tmp_path / "map.tif", tmp_path, "out")
    with tifffile.TiffFile(labels) as file:
        page = file.pages.first
        for code, _, _, value, _ in tags:
            assert page.tags[code].value == value
        text = page.tags[34737]
        stored = labels.read_bytes()[text.valueoffset : text.valueoffset + text.count]
        assert stored == names + b"\0"
        assert page.tags[42113].value == "255"
        assert page.is_tiled
        assert page.compression == 8  # deflate
        found, colours = page.asarray(), page.colormap.T // 257
    empty = np.zeros((HEIGHT, WIDTH), bool)
    empty[20:70, 30:90] = True
    np.testing.assert_array_equal(found == 255, empty)
    np.testing.assert_array_equal(colours[: len(SCENES)], SCENES.palette)
    assert tuple(colours[255]) == VOID_COLOUR
    with Image.open(labels) as readable, Image.open(overview) as small:  # by another reader
        assert readable.mode == "P"
        np.testing.assert_array_equal(np.asarray(readable), found)
        assert small.width == WIDTH
        assert small.height > HEIGHT  # with the legend


def test_the_overview_is_small(
    scene_checkpoint: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third pixel of picture and labels, whatever the parts."""
    from atrous.visualize import draw

    monkeypatch.setattr("atrous.large_job.OVERVIEW", 60)
    labels, overview = segment_large(predictor(scene_checkpoint), picture, picture.parent, "out", held=PARTS)
    expected = draw(pixels()[::3, ::3], tifffile.imread(labels)[::3, ::3], SCENES)
    np.testing.assert_array_equal(np.asarray(Image.open(overview)), expected)


def test_many_classes_and_large_files(tmp_path: Path) -> None:
    from atrous.raster.labels import write_label_tiff

    values = np.random.default_rng(0).integers(0, 300, (70, 530)).astype(np.uint16)
    for classes, classic in ((300, 0), (255, 2**40)):
        labels = Labels.named([f"c{i}" for i in range(classes)])
        found = np.minimum(values, classes - 1).astype(np.uint16 if classes > 255 else np.uint8)
        write_label_tiff(
            tmp_path / "a.tif", lambda top, bottom, found=found: found[top:bottom], (70, 530), labels, classic=classic
        )  # fmt: skip
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_bigtiff == (classic == 0)
            np.testing.assert_array_equal(file.asarray(), found)


def test_what_is_refused(scene_checkpoint: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = predictor(scene_checkpoint), picture.parent
    with pytest.raises(InputError, match=r"dense CRF .* without it \(--no_crf\)"):
        segment_large(predictor(scene_checkpoint, crf=True), picture, folder, "out")
    with pytest.raises(InputError, match="--longer_side 0"):
        segment_large(predictor(scene_checkpoint, longer_side=50), picture, folder, "out")
    with pytest.raises(InputError, match="is a picture to predict"):
        segment_large(model, picture, folder, "big", overwrite=True)
    (folder / "out.tif").write_text("precious")
    with pytest.raises(InputError, match=r"out\.tif: exists already"):
        segment_large(model, picture, folder, "out")
    assert (folder / "out.tif").read_text() == "precious"
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 10**7))
        with pytest.raises(InputError, match=r"173x110 labels need 0\.07 GB of disk .* 0\.01 GB are free"):
            segment_large(model, picture, folder, "new")
    cut = folder / "cut.tif"
    cut.write_bytes(picture.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut off"):
        segment_large(model, cut, folder, "new")
    whole = picture.read_bytes()
    cut.write_bytes(whole[:-3000] + b"\0" * 500 + whole[-2500:])
    with pytest.raises(InputError, match=r"cut\.tif: the picture is damaged"):
        segment_large(model, cut, folder, "new")
    assert sorted(path.name for path in folder.iterdir()) == ["big.tif", "cut.tif", "out.tif"]


def test_large_pictures_are_known_by_their_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.large.LARGE", 100 * 100)
    noise, plain = tmp_path / "noise.tif", tmp_path / "plain.png"
    write(noise, pixels(700, 800))
    assert noise.stat().st_size > 2**20
    Image.fromarray(np.zeros((700, 800, 3), np.uint8)).save(plain)
    assert is_large(noise)
    assert not is_large(plain), "so few bytes that so many pixels may be a bomb"
    assert not is_large(tmp_path / "gone.tif")
    monkeypatch.setattr("atrous.large.LARGE", 700 * 800)
    assert not is_large(noise)


def test_command(
    scene_checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(pixels(20, 30)).save(tmp_path / "b.png")
    words = ["predict", str(scene_checkpoint), str(picture), str(tmp_path / "b.png"), "--device", "cpu"]
    words += ["--size", "48", "64", "--large", "--out", str(tmp_path / "out")]
    main(words)
    said = capsys.readouterr().out
    assert "2 of 2 pictures" in said
    assert said.count("by windows (slide 48x64 overlap 0.333") == 2
    assert said.endswith("(large ones: slide 48x64 overlap 0.333, scales 1, no flip)\n")
    jobs = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    protocols = [job["settings"]["protocol"] for job in jobs if "settings" in job]
    assert [(protocol["mode"], protocol["size"]) for protocol in protocols] == [("slide", [48, 64])]
    expected = predictor(scene_checkpoint).predict(pixels()).labels
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "big.tif"), expected)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"predictions.jsonl"}
    assert names == {"big.tif", "big_overview.png", "b.tif", "b_overview.png"}
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "big.tif: exists already" in capsys.readouterr().err
    before = (tmp_path / "out" / "big.tif").stat().st_mtime_ns
    main([*words, "--resume"])
    assert "2 of them by an earlier job" in capsys.readouterr().out
    assert (tmp_path / "out" / "big.tif").stat().st_mtime_ns == before


def test_command_says_both_protocols(
    scene_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each picture's in the record; a job that goes on knows both."""
    monkeypatch.setattr("atrous.large.LARGE", 100 * 100)
    monkeypatch.setattr("atrous.large.SMALL_FILE", 1000)
    monkeypatch.setattr("atrous.predict.WINDOW", (48, 64))
    Image.fromarray(pixels(20, 30)).save(tmp_path / "b.png")
    words = [
        "predict",
        str(scene_checkpoint),
        str(tmp_path),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    main(words)
    both = "(direct, scales 1, no flip; large ones: slide 48x64 overlap 0.333, scales 1, no flip)\n"
    assert capsys.readouterr().out.endswith(both)
    mode, modes = "", {}
    for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines():
        entry = json.loads(line or "{}")
        mode = entry["settings"]["protocol"]["mode"] if "settings" in entry else mode
        modes |= {entry["done"]: mode} if "done" in entry else {}
    assert modes == {"b": "direct", "big": "slide"}
    main([*words, "--resume"])
    assert "2 of them by an earlier job " + both in capsys.readouterr().out


def test_command_refuses_in_one_line(
    scene_checkpoint: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder that cannot be written, before anything is read; a huge JPEG without libvips, and the rest goes on."""
    jpeg, out = tmp_path / "huge.jpg", tmp_path / "out"
    Image.fromarray(pixels()).save(jpeg)
    monkeypatch.setattr("atrous.raster.WHOLE", 1000)
    monkeypatch.setitem(sys.modules, "pyvips", None)
    words = [
        "predict",
        str(scene_checkpoint),
        str(jpeg),
        str(picture),
        "--size",
        "48",
        "64",
        "--large",
        "--out",
    ]

    def refused(folder: Path) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*words, str(folder)])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "cannot write there" in refused(jpeg / "below")
    with monkeypatch.context() as locked:  # root may write everywhere
        locked.setattr("atrous.terminal.os.access", lambda path, _: Path(path) != tmp_path)
        assert f"{out}: cannot write there ({tmp_path} is no folder you may write to)" in refused(out)
    assert not out.exists()
    line = refused(out)
    assert f"large pictures ({jpeg}) need pyvips" in line
    assert line.endswith("pip install 'atrous[vips]'")
    expected = predictor(scene_checkpoint).predict(pixels()).labels
    np.testing.assert_array_equal(tifffile.imread(out / "big.tif"), expected)
    assert not list(out.glob("*huge*"))
