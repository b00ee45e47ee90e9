"""Exports of annotation tools made into a folder of pictures and masks, see `folder.py`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from atrous.data.annotations import BACKGROUND, BACKGROUND_NAMES, Annotations, Picture, read_json
from atrous.data.class_files import VOID_NAMES
from atrous.data.coco import is_coco, read_coco
from atrous.data.cvat import read_cvat
from atrous.data.labelme import embedded_picture, is_labelme, read_labelme
from atrous.data.labels import Labels, voc_palette
from atrous.data.layout import files_below
from atrous.data.pictures import IMAGE_SUFFIXES, image_size
from atrous.data.shapes import Region
from atrous.errors import InputError

Progress = Callable[[int, int], None]

IGNORED_NAMES = (*VOID_NAMES, "__ignore__")
SOURCES = (
    "understood are a COCO instances file (.json), a folder of LabelMe files, and CVAT's annotations.xml"
)


@dataclass
class Conversion:
    """What was written. classes: {name: number}. ignored: names whose areas became void. ids: COCO's, by name."""

    tool: str
    pictures: int
    classes: dict[str, int]
    ignored: list[str]
    ids: dict[str, int]
    void: int
    problems: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    link: bool = False,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write images/, masks/ and classes.txt of an export into the new folder `out`.

    Class 0 is the background, where nothing was drawn; then come COCO's categories by id, or the labels of
    LabelMe and CVAT by alphabet. Labels called void or ignore become the void label (255, or 65535 beyond 255
    classes). Masks are palette PNGs in VOC's colours. Pictures in folders lose these: a/b.jpg becomes a_b.jpg.
    images: where the pictures are, if not beside the annotations. link: link to them instead of copying.

    InputError: `out` exists and is not empty, a source that is not understood, and, unless `skip_broken`,
    anything damaged or missing: all of it, one line each. `out` is there whole, or not at all.
    """
    source, out = Path(source), Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: exists already; give another folder to write into")
    found = read_annotations(source, None if images is None else Path(images))
    if not found.pictures:
        first = found.problems[0] if found.problems else f"{source}: no picture in it"
        more = f" ({len(found.problems)} such problems; --images says where pictures are)"
        raise InputError(first + (more if len(found.problems) > 1 else ""))
    names, numbers, ignored = number_classes(found)
    void = Labels.named(names).ignore_index
    targets = {**numbers, **dict.fromkeys(ignored, void)}
    ids = {names[numbers[label]]: number for label, number in found.ids.items() if numbers.get(label)}
    conversion = Conversion(found.tool, 0, {n: i for i, n in enumerate(names)}, ignored, ids, void)
    conversion.problems, conversion.left_out = found.problems, dict(found.left_out)
    pictures = _checked(found)
    _refuse(conversion.problems, skip_broken)

    out = out.absolute()
    partial = out.with_name(f".{out.name}-{os.getpid()}")
    for folder in ("images", "masks"):
        (partial / folder).mkdir(parents=True)
    try:
        for done, (stem, picture) in enumerate(pictures.items(), start=1):
            try:
                _write(picture, stem, partial, targets, void, found.smaller_on_top, link)
                conversion.pictures += 1
            except (InputError, ValueError) as error:
                where = "" if isinstance(error, InputError) else f"{picture.name}: "
                conversion.problems.append(f"{where}{error}")
            if progress is not None:
                progress(done, len(pictures))
        _refuse(conversion.problems, skip_broken)
        if not conversion.pictures:
            raise InputError(f"{source}: no picture could be converted: {conversion.problems[0]}")
        (partial / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return conversion


def read_annotations(source: Path, images: Path | None) -> Annotations:
    """Find out what `source` is, and read it."""
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such folder of pictures")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.suffix == ".zip":
        raise InputError(f"{source}: unpack it first, and give the folder")
    if source.suffix == ".xml":
        return read_cvat(source, images)
    if source.is_dir() and (source / "annotations.xml").is_file():
        return read_cvat(source / "annotations.xml", images)
    files = [path for path in files_below(source) if path.suffix == ".json"] if source.is_dir() else [source]
    if not files or files[0].suffix != ".json":
        raise InputError(f"{source}: no annotations here; {SOURCES}")
    content = None
    for path in files[:50]:  # LabelMe folders may hold damaged files, which are reported with the others
        try:
            content = read_json(path)
        except InputError:
            if len(files) == 1:
                raise
            continue
        if is_coco(content):
            if len(files) > 1:
                raise InputError(f"{source}: {len(files)} JSON files: give one of them, such as {path}")
            return read_coco(path, content, images)
        if is_labelme(content):
            return read_labelme(source if source.is_dir() else source.parent, files, images)
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        raise InputError(f"{source}: a COCO file without the lists images, annotations and categories")
    raise InputError(f"{source}: not understood; {SOURCES}")


def number_classes(found: Annotations) -> tuple[list[str], dict[str, int], list[str]]:
    """The names for classes.txt, {label: class}, and the labels that are ignored."""
    names, numbers, ignored = [BACKGROUND], dict[str, int](), list[str]()
    for label in found.labels:
        if label.lower() in BACKGROUND_NAMES:
            numbers[label] = 0
        elif label.lower() in IGNORED_NAMES:
            ignored.append(label)
        else:
            # with , or : the file would be a colour map
            name = " ".join(re.sub("[,:]", " ", label).split()) or "class"
            while name in names:
                name += "'"
            numbers[label] = len(names)
            names.append(name)
    if len(names) < 2:
        raise InputError(f"no class but {BACKGROUND} in these {found.tool} annotations")
    return names, numbers, ignored


def draw_mask(
    regions: Sequence[Region], size: tuple[int, int], targets: dict[str, int], smaller_on_top: bool
) -> np.ndarray:
    """(H, W) int32 class numbers, 0 where nothing is drawn; later regions over earlier, or smaller over larger."""
    mask = np.zeros(size, np.int32)
    covers = [(region, region.cover(*size)) for region in regions]
    if smaller_on_top:
        covers.sort(key=lambda pair: (not pair[0].below, -int(pair[1].sum())))
    for region, cover in covers:
        mask[cover] = targets[region.label]
    return mask


def _checked(found: Annotations) -> dict[str, Picture]:
    """The pictures by the name they will have; a line in `problems` for each that cannot be used."""
    pictures: dict[str, Picture] = {}
    for picture in found.pictures:
        path = Path(picture.name.replace("\\", "/"))
        stem = "_".join(part for part in path.with_suffix("").parts if part not in ("/", "..", "."))
        try:
            if picture.file is not None:
                if picture.file.suffix.lower() not in IMAGE_SUFFIXES:
                    raise InputError(f"{picture.file}: not a kind of picture that is read")
                _check_size(picture, picture.file)
            if stem in pictures:
                raise InputError(
                    f"{picture.name}: would be called {stem}, as {pictures[stem].name} is already"
                )
        except InputError as error:
            found.problems.append(str(error))
            continue
        pictures[stem] = picture
    return pictures


def _check_size(picture: Picture, file: Path) -> None:
    """Set the picture's size to its file's; InputError where the annotations say another."""
    height, width = size = image_size(file)
    if picture.size is not None and picture.size != size:
        said = f"{picture.size[1]}x{picture.size[0]}"
        where = file if picture.embedded is None else picture.embedded
        raise InputError(f"{where}: the picture is {width}x{height}, its annotations are for {said}")
    picture.size = size


def _refuse(problems: list[str], skip_broken: bool) -> None:
    if problems and not skip_broken:
        shown = [*problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        advice = "nothing was written; --skip_broken leaves these out"
        raise InputError("\n".join([*shown, advice]) if len(problems) > 1 else f"{shown[0]}; {advice}")


def _write(
    picture: Picture,
    stem: str,
    out: Path,
    targets: dict[str, int],
    void: int,
    smaller_on_top: bool,
    link: bool,
) -> None:
    regions = picture.regions()
    suffix = ".jpg" if picture.file is None else picture.file.suffix.lower()
    image = out / "images" / f"{stem}{suffix}"
    try:
        if picture.file is None:
            assert picture.embedded is not None
            image.write_bytes(embedded_picture(picture.embedded))
            kind = _kind(image)
            image = image.rename(image.with_suffix(kind))
            _check_size(picture, image)
        elif link:
            image.symlink_to(picture.file.resolve())
        else:
            shutil.copyfile(picture.file, image)
        assert picture.size is not None
        mask = draw_mask(regions, picture.size, targets, smaller_on_top)
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    if void > 255:
        Image.fromarray(mask.astype(np.uint16)).save(out / "masks" / f"{stem}.png")
        return
    saved = Image.fromarray(mask.astype(np.uint8))
    saved.putpalette([channel for colour in voc_palette(256) for channel in colour])
    saved.save(out / "masks" / f"{stem}.png")


def _kind(path: Path) -> str:
    """The ending of a picture by its content."""
    image_size(path)  # says what is wrong where it is none
    with Image.open(path) as picture:
        return {"JPEG": ".jpg", "MPO": ".jpg"}.get(str(picture.format), f".{str(picture.format).lower()}")
