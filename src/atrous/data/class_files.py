"""The files in which people keep the names of their classes, with colours or without."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from atrous.data.labels import Colour, Labels
from atrous.data.pictures import read_lines
from atrous.errors import InputError

CLASS_FILES = (
    *("classes.txt", "labelmap.txt", "class_dict.csv", "labelmap.csv", "label_colors.txt"),
    *("labelmap.json", "labelmap.yaml", "labelmap.yml"),
)
# Entries of a colour map that mean "leave this pixel out" rather than a class.
VOID_NAMES = ("void", "ignore", "unlabeled", "unlabelled")
_NAME_FIRST = re.compile(
    r"^\s*(?P<name>[^:,]+?)\s*[:,]\s*(?P<r>\d+)\s*,\s*(?P<g>\d+)\s*,\s*(?P<b>\d+)\s*(?:[:,].*)?$"
)
_COLOUR_FIRST = re.compile(r"^\s*(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)\s+(?P<name>\S.*?)\s*$")


def label_file(root: Path) -> Path | None:
    """The file that says what the classes of a folder are."""
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), None)


def read_classes(path: Path) -> tuple[Labels, Labels | None]:
    """The classes that a file names, and the same once more where it has their colours, which masks may use.

    The file has one name a line, or is a colour map. Raises InputError naming the file.
    """
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if path.suffix == ".txt" and not any(character in line for line in lines for character in ":,"):
        if not lines or len(set(lines)) < len(lines):
            raise InputError(f"{path}: expected one class name a line, each once")
        if not all(line.split()[0].isdigit() for line in lines):
            return Labels.named(lines), None
    colours = read_colour_map(path)
    return colours, colours


def read_colour_map(path: str | Path) -> Labels:
    """Read class names and RGB colours from a file; the order in the file numbers the classes from 0.

    Understood: lines `name:r,g,b` with anything after a further colon (CVAT's labelmap.txt), lines
    `name,r,g,b` with or without a heading (CamVid's class_dict.csv), lines `r g b name` (CamVid's
    label_colors.txt), and JSON or YAML of `name: [r, g, b]`. Lines that begin with # are comments. Entries
    named void, ignore or unlabeled become `void_colours` and are no class.

    Raises InputError naming the file, and the line where there is one.
    """
    path = Path(path)
    entries = _entries(path)
    if not entries:
        raise InputError(f"{path}: no class with a colour in it: lines like 'name:r,g,b' are expected")
    names: list[str] = []
    palette: list[Colour] = []
    void: list[Colour] = []
    for where, name, colour in entries:
        if not all(0 <= channel <= 255 for channel in colour):
            raise InputError(f"{path}: {where}: colour {colour} of {name!r} is not within 0..255")
        if name in names:
            raise InputError(f"{path}: {where}: class {name!r} is there twice")
        if colour in palette or colour in void:
            raise InputError(f"{path}: {where}: colour {colour} of {name!r} belongs to another class already")
        if name.lower() in VOID_NAMES:
            void.append(colour)
        else:
            names.append(name)
            palette.append(colour)
    return Labels.named(names, palette, void)


def numbers_with_void(path: Path) -> dict[int, int]:
    """{number: class or void label} for masks that count the void entries of a colour map; {} where all are last."""
    table: dict[int, int] = {}
    names = [name.lower() for _, name, _ in _entries(path)]
    void = Labels.named([name for name in names if name not in VOID_NAMES]).ignore_index
    classes = 0
    for number, name in enumerate(names):
        table[number] = void if name in VOID_NAMES else classes
        classes += name not in VOID_NAMES
    moved = {number: new for number, new in table.items() if number != new}
    return moved if any(new != void for new in moved.values()) else {}


def _entries(path: Path) -> list[tuple[str, str, Colour]]:
    return _mapping_entries(path) if path.suffix in (".json", ".yaml", ".yml") else _line_entries(path)


def _line_entries(path: Path) -> list[tuple[str, str, Colour]]:
    entries: list[tuple[str, str, Colour]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _NAME_FIRST.match(line) or _COLOUR_FIRST.match(line)
        if match:
            colour = (int(match["r"]), int(match["g"]), int(match["b"]))
            entries.append((f"line {number}", match["name"], colour))
        elif entries or any(character.isdigit() for character in line):  # otherwise it is a CSV heading
            raise InputError(f"{path}: line {number}: expected 'name:r,g,b', got {line.strip()!r}")
    return entries


def _mapping_entries(path: Path) -> list[tuple[str, str, Colour]]:
    text = "\n".join(read_lines(path))
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected names with colours, like 'road: [128, 64, 128]'")
    entries: list[tuple[str, str, Colour]] = []
    for name, colour in content.items():
        if not (isinstance(colour, list) and len(colour) == 3 and all(isinstance(c, int) for c in colour)):
            raise InputError(
                f"{path}: class {str(name)!r}: expected a colour like [128, 64, 128], got {colour!r}"
            )
        entries.append((f"class {str(name)!r}", str(name), (colour[0], colour[1], colour[2])))
    return entries
