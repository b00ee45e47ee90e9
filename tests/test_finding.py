"""Which pictures folders, globs and lists mean, and what their results are called."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from atrous.errors import InputError
from atrous.finding import find_pictures, part_of
from atrous.results import Outputs, refuse_clashes
from atrous.visualize import Style
from drawn_photos import draw


def test_a_tree_keeps_its_form(tmp_path: Path) -> None:
    for name in ("b.jpg", "x/a.jpg", "x/a.png", "y/a.jpg", "y/deep/c.JPG", ".hidden.jpg", "out/a.png"):
        draw(tmp_path / "p" / name)
    (tmp_path / "p" / "notes.txt").touch()
    found = find_pictures([tmp_path / "p"], leave_out=tmp_path / "p" / "out")
    assert list(found) == ["b", "x/a_jpg", "x/a_png", "y/a", "y/deep/c"]
    assert found["y/deep/c"] == tmp_path / "p" / "y" / "deep" / "c.JPG"
    assert list(find_pictures([tmp_path / "p" / "x", tmp_path / "p" / "b.jpg"])) == ["a_jpg", "a_png", "b"]


def test_links_are_followed_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    for name in ("p/a.jpg", "p/.ipynb_checkpoints/a.jpg", "far/b.jpg", "p/.x/c.jpg"):
        draw(tmp_path / name)
    (tmp_path / "p" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "far" / "back").symlink_to(tmp_path)
    assert list(find_pictures([tmp_path / "p"])) == ["a", "more/b"]
    assert list(find_pictures([tmp_path / "p" / "*" / "*.jpg"])) == ["loop/a", "more/b"]
    assert list(find_pictures([tmp_path / "p" / "*" / ".x" / "*.jpg", tmp_path / "p" / ".x"])) == [
        "loop/.x/c",
        "c",
    ]


def test_globs_and_lists(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "x/b.png", "y/a.jpg"):
        draw(tmp_path / name)
    assert list(find_pictures([tmp_path / "*" / "a.jpg"])) == ["x/a", "y/a"]
    assert list(find_pictures([tmp_path / "**" / "*.*g"])) == ["x/a", "x/b", "y/a"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# three\nx/a.jpg\n{tmp_path / 'y' / 'a.jpg'}\n\nx/gone.jpg\n")
    found = find_pictures([listed])
    assert found == {
        "x/a": tmp_path / "x" / "a.jpg",
        "y/a": tmp_path / "y" / "a.jpg",
        "x/gone": tmp_path / "x" / "gone.jpg",  # said when it is its turn
    }


def test_a_file_counts_once_and_folders_may_have_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a[1]").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a[1]" / "x.png")
    for pattern in (Path("a[1]"), tmp_path / "a[1]"):
        assert find_pictures([pattern / "*.png"]) == {"x": pattern / "x.png"}
    assert find_pictures([Path("a[1]/x.png"), tmp_path / "a[1]" / "x.png"]) == {"x": Path("a[1]/x.png")}


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ([], ["gone.jpg"], "gone.jpg: no such picture"),
        ([], ["*.jpg"], r"\*\.jpg: no picture has such a name"),
        (["notes.md"], ["."], "no pictures in this folder"),
        (["list.txt"], ["list.txt"], "no picture is named in this list"),
        (["x/a.jpg", "y/a.jpg"], ["x/a.jpg", "y/a.jpg"], r"both would be written as a_jpg\.png"),
        (["a.jpg", "a.png", "a_jpg.png"], ["."], r"both would be written as a_jpg\.png"),
    ],
)
def test_what_cannot_be_found_or_clashes(
    names: list[str], given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    with pytest.raises(InputError, match=message) as error:
        find_pictures(given)
    assert "\n" not in str(error.value)


def test_two_pictures_that_would_be_written_to_one_file() -> None:
    """Whichever of them are large; names alone that look like a result's are none."""
    pictures = {name: Path(f"{name}.jpg") for name in ("x/a", "x/a_overlay", "x/a_overview", "x/a_mask")}
    pictures |= {"x/a_probabilities": Path("x/a_probabilities.jpg"), "a_overview": Path("a_overview.jpg")}

    def clashing(outputs: Outputs, *large: str) -> set[str]:
        """Each pair is asked for alone."""
        found = set()
        for one, other in itertools.combinations(pictures, 2):
            two = {name: pictures[name] for name in (one, other)}
            try:
                refuse_clashes(two, outputs, lambda path: path.stem in large)
            except InputError as error:
                assert str(error).startswith(f"{two[one]} and {two[other]}: both would be written as ")
                found.add(str(error).split(" as ")[1].split(";")[0])
        return found

    plain, masks = Outputs(probabilities=True), Outputs(style=Style("mask"))
    assert clashing(plain) == {"x/a_overlay.png"}
    assert clashing(masks) == {"x/a_mask.png"}
    assert clashing(plain, "a") == {"x/a_overview.png"}
    assert clashing(masks, "a", "a_overview", "a_mask") == set()


def test_a_large_picture_and_one_called_as_its_overview(
    scene_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """Before any work, and with --overwrite too."""
    monkeypatch.setattr("atrous.large.LARGE", 100)
    monkeypatch.setattr("atrous.large.SMALL_FILE", 1000)
    photos = [draw(tmp_path / "x.png"), draw(tmp_path / "x_overview.png", (3, 4))]
    words = ["predict", str(scene_checkpoint), str(tmp_path), "--out", str(tmp_path / "out"), "--overwrite"]
    assert f"{photos[0]} and {photos[1]}: both would be written as x_overview.png" in refused(words)
    assert not (tmp_path / "out").exists()


def test_parts_hold_each_picture_exactly_once() -> None:
    pictures = {str(i): Path(f"{i}.jpg") for i in range(17)}
    parts = [part_of(pictures, which, 5) for which in range(5)]
    assert sorted(name for part in parts for name in part) == sorted(pictures)
    assert {len(part) for part in parts} == {3, 4}
