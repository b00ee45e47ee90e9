"""Strange and broken pictures through the command line: the right answer, or one clear line."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.data.pictures import read_image
from atrous.errors import InputError
from atrous.predict import Predictor
from atrous.raster import open_raster

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets it for its process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def labels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def predict(checkpoint: Path, *words: object) -> list[str]:
    return ["predict", str(checkpoint), *map(str, words)]


def test_what_can_be_read_is_read_rightly(
    scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned clockwise by a quarter
    grey = PIXELS[..., 0]
    alpha = np.dstack([PIXELS, np.where(np.arange(31) < 15, 255, 0).astype(np.uint8)[None].repeat(23, 0)])
    over_white = np.where(alpha[..., 3:] == 255, PIXELS, 255).astype(np.uint8)
    cmyk = Image.fromarray(255 - np.dstack([PIXELS, np.full((23, 31), 255, np.uint8)]), "CMYK")
    frames = [Image.fromarray(np.full((9, 12), value, np.uint8)) for value in (40, 90, 200)]
    wanted = {"exif": np.rot90(PIXELS, -1), "deep": np.dstack([grey] * 3), "rgba": over_white}
    wanted |= {"cmyk": np.asarray(cmyk.convert("RGB")), "gif": np.full((9, 12, 3), 40, np.uint8)}
    wanted |= {"dot": PIXELS[:1, :1], "line": RNG.integers(0, 256, (1, 5000, 3), dtype=np.uint8)}
    Image.fromarray(PIXELS).save(folder / "exif.png", exif=turned)
    Image.fromarray(grey.astype(np.uint16) * 256 + 17).save(folder / "deep.png")
    Image.fromarray(alpha).save(folder / "rgba.png")
    cmyk.save(folder / "cmyk.tif")
    frames[0].save(folder / "gif.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(wanted["dot"]).save(folder / "dot.png")
    Image.fromarray(wanted["line"]).save(folder / "line.png")

    main(predict(scene_checkpoint, folder, "--out", out))
    printed = capsys.readouterr().out
    assert "gif.gif: has 3 frames or pages: the first one was taken" in printed
    assert printed.count("the first one was taken") == 1
    assert f"7 of 7 pictures -> {out}" in printed
    predictor = Predictor(scene_checkpoint)
    for name, pixels in wanted.items():
        found = labels(out / f"{name}.png")
        assert found.shape == pixels.shape[:2], name
        np.testing.assert_array_equal(found, predictor.predict(np.ascontiguousarray(pixels)).labels, name)

    main(predict(scene_checkpoint, folder / "exif.png", "--out", tmp_path / "stored", "--as_stored"))
    np.testing.assert_array_equal(labels(tmp_path / "stored" / "exif.png"), predictor.predict(PIXELS).labels)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(PIXELS).save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not a picture at all")
    Image.new("L", (40, 30)).save(folder / "bomb.png")
    lines = refused(predict(scene_checkpoint, folder, "--out", out, "--max_pixels", 1000), 4).splitlines()
    for name, message in {
        "bomb.png": "has too many pixels, 1,200: if the file can be trusted, --max_pixels 1200 allows it",
        "cut.png": "the picture is damaged or cut off",
        "empty.jpg": "the file is empty",
        "text.jpg": "not a picture (it begins with b'not a pictur')",
    }.items():
        assert sum(f"{folder / name}: {message}" in line for line in lines) == 1, lines
    assert sorted(path.name for path in out.iterdir()) == [
        "good.png", "good_overlay.png", "predictions.jsonl"
    ]  # fmt: skip
    main(predict(scene_checkpoint, folder / "bomb.png", "--out", out, "--max_pixels", 1200))
    assert labels(out / "bomb.png").shape == (30, 40)


@pytest.mark.parametrize(("length", "large"), [(239, []), (251, []), (250, ["--large", "--size", "48"])])
def test_a_name_too_long_for_its_results_does_not_stop_the_rest(
    length: int, large: list[str], scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """.part-NAME_overlay.png has 18 bytes more than NAME, NAME_overlay.png 12, NAME_overview.png 13; 255 are there."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for stem in ("a", "n" * length, "z"):
        Image.fromarray(PIXELS).save(folder / f"{stem}.jpg")
    line = refused(predict(scene_checkpoint, folder, "--out", out, *large))
    assert f"{'n' * length}.jpg: the names of its results are longer than the disk takes" in line
    stems = {path.name[:1] for path in out.iterdir() if path.suffix in (".png", ".tif")}
    assert stems == {"a", "z"}
    assert not list(out.glob(".*"))


def test_many_broken_pictures_are_cut_short(
    scene_checkpoint: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number}.jpg").touch()
    lines = refused(predict(scene_checkpoint, folder, "--out", out), 21).splitlines()
    assert f"and 5 more: see {out}" in lines[-1]
    assert (out / "predictions.jsonl").read_text().count('"broken"') == 25


def test_nothing_is_overwritten_silently(
    scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        Image.fromarray(PIXELS).save(folder / name)
    main(predict(scene_checkpoint, folder, "--out", out))
    assert sorted(path.name for path in out.glob("*.png") if "overlay" not in path.name) == [
        "a_jpg.png", "a_png.png", "b.png"
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in [*out.glob("*.png"), *folder.iterdir()]}
    capsys.readouterr()
    lines = refused(predict(scene_checkpoint, folder, "--out", out), 3).splitlines()
    assert [line.split(": ")[3][:6] for line in lines] == ["exists", "exists", "exists"]
    # beside the pictures, b.png would be its own result
    line = refused(predict(scene_checkpoint, folder / "b.png", "--out", folder, "--overwrite"))
    assert f"{folder / 'b.png'}: is a picture to predict; give another --out" in line
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder / "b_overlay.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{file}/out"], "cannot write there"),
        (["--batch_size", "0"], "--batch_size 0 must be at least 1"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--flip", "--no_flip"], "--flip and --no_flip: give one of them"),
        (["--no_crf", "--crf_options.iter_max", "2"], "--crf_options and --no_crf: give one of them"),
        (["--smoothing", "0.5"], "--smoothing is for a video"),
        (["--protocol", "v4"], "protocol"),
        (["--overlap", "1"], "overlap 1.0 must be a share"),
        (["--mode", "slide"], "mode 'slide' needs a size"),
        (["--output_stride", "5"], "output_stride=5 cannot be had here"),
    ],
)
def test_flags_that_cannot_be(
    words: list[str], message: str, scene_checkpoint: Path, photo: Path, refused: Callable[..., str]
) -> None:
    words = [word.format(file=photo) for word in words]
    line = refused(predict(scene_checkpoint, photo, *words))
    assert message in line
    assert sorted(photo.parent.iterdir()) == [photo]


def test_evaluate_says_what_is_wrong_with_its_widths(
    scene_checkpoint: Path, refused: Callable[..., str]
) -> None:
    line = refused(["evaluate", str(scene_checkpoint), "scenes", "--trimap", "0,5"])
    assert "--trimap 0: wanted widths in pixels, as 1,5,10,20,40" in line
    for widths in ("a", "", "1,b"):
        line = refused(["evaluate", str(scene_checkpoint), "scenes", f"--trimap={widths}"])
        assert f"--trimap {widths}: wanted whole numbers, as 1,2" in line
    line = refused(["evaluate", str(scene_checkpoint), "scenes", "--boundary_iou", "2"])
    assert "boundary share 2.0 must be between 0 and 1" in line


def test_the_protocol_is_printed_and_stored(
    scene_checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(predict(scene_checkpoint, photo, "--out", out, "--protocol", "v3", "--scales", 0.5, 1, "--no_flip"))
    printed = capsys.readouterr().out
    assert "(direct, output stride 8, scales 0.5 1, no flip, mean of probabilities)" in printed
    record = (out / "predictions.jsonl").read_text()
    assert '"scales": [0.5, 1.0], "flip": false' in record
    assert '"output_stride": 8' in record


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiffs_of_many_kinds_are_read_as_by_windows_or_refused(
    tmp_path: Path, bands: int, photometric: str, planes: str, kind: type
) -> None:
    """Pillow takes some of them for others."""
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (9, 13, bands)).astype(kind)
    if photometric == "rgb" and bands < 3:
        pytest.skip("no RGB")
    for compression, order in itertools.product((None, "deflate", "lzw"), "<>"):
        path = tmp_path / f"{compression}{ord(order)}.tif"
        stored = values if planes == "contig" or bands == 1 else values.transpose(2, 0, 1)
        tifffile.imwrite(
            path, stored[..., 0] if bands == 1 else stored, photometric=photometric, byteorder=order,
            planarconfig=None if bands == 1 else planes, compression=compression,
        )  # fmt: skip
        try:
            whole = read_image(path)
        except InputError as error:
            assert bands > 1 and "read by `atrous predict --large` alone" in str(error)
            assert photometric == "minisblack" or bands > 4 or (kind, planes) == (np.uint16, "separate")
            continue
        np.testing.assert_array_equal(whole, open_raster(path).read(0, 9, 0, 13).pixels)
