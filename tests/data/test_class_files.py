"""The files that name classes; test_data_layouts.py has those of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from atrous.data.class_files import read_colour_map
from atrous.data.labels import Labels
from atrous.errors import InputError

COLOUR_MAPS = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ntall tree: 0,128,0 ::\nvoid:0,0,0::\n",
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\ntall tree,0,128,0\nVoid,0,0,0\n",
    "plain.csv": "road,128,64,128\ntall tree,0,128,0\nignore,0,0,0",
    "label_colors.txt": "128 64 128\troad\n0 128 0\ttall tree\n0 0 0\t\tVoid\n",
    "map.json": '{"road": [128, 64, 128], "tall tree": [0, 128, 0], "unlabeled": [0, 0, 0]}',
    "map.yaml": "road: [128, 64, 128]\ntall tree: [0, 128, 0]\nvoid: [0, 0, 0]\n",
}


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colour_maps(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(COLOUR_MAPS[name])
    labels = read_colour_map(tmp_path / name)
    assert labels == Labels(("road", "tall tree"), ((128, 64, 128), (0, 128, 0)), 255, ((0, 0, 0),))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", "road:1,2,3\nnonsense\n", "line 2: expected 'name:r,g,b', got 'nonsense'"),
        ("a.txt", "road:1,2\n", "line 1: expected 'name:r,g,b'"),
        ("a.txt", "road:1,2,300\n", "line 1: colour (1, 2, 300) of 'road' is not within 0..255"),
        ("a.txt", "road:1,2,3\nroad:1,2,4\n", "line 2: class 'road' is there twice"),
        ("a.txt", "road:1,2,3\ncar:1,2,3\n", "line 2: colour (1, 2, 3) of 'car' belongs to another class"),
        ("a.txt", "\n", "no class with a colour"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[1]", "expected names with colours"),
        ("a.yaml", "road: 5", "class 'road': expected a colour like [128, 64, 128], got 5"),
    ],
)
def test_colour_maps_that_cannot_be_used(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_colour_map(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name)) and complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_colour_map_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_colour_map(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(bytes([255, 254, 200, 13]))
    with pytest.raises(InputError, match="cannot be read as text"):
        read_colour_map(tmp_path / "binary.txt")
