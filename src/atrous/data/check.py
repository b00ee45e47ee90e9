"""Look at every file of a data set before training: what would break, and how the classes share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from atrous.data import find_format, open_dataset
from atrous.data.base import SegmentationDataset, describe_values, size_mismatch, unknown_values
from atrous.data.id_maps import black_and_white
from atrous.data.labels import Labels
from atrous.data.pictures import palette_colours
from atrous.data.splits import SPLITS, MissingPartError, Splits
from atrous.errors import InputError
from atrous.losses import class_weights_from_shares

Progress = Callable[[int, int], None]

WITH_TEST = ("folder", "camvid")  # layouts whose test part has real masks, where it is there


@dataclass
class SplitReport:
    """What one split holds, faulty pairs not counted; the arrays have one entry a class."""

    pictures: int
    pixels: np.ndarray  # (C,) pixels of the class
    present: np.ndarray  # (C,) pictures that show the class
    present_pixels: np.ndarray  # (C,) valid pixels of the pictures that show the class
    void_pixels: int = 0
    smallest: tuple[int, int] = (0, 0)  # height, width of the picture with the fewest pixels
    largest: tuple[int, int] = (0, 0)

    @property
    def shares(self) -> np.ndarray:
        """(C,) each class's share of the pixels that are not void, 0..1."""
        return self.pixels / max(1, self.pixels.sum())


@dataclass
class CheckReport:
    """`problems` would break a training or spoil it, `warnings` may; one line each, naming the file."""

    path: str
    labels: Labels | None = None
    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    id_maps: dict[str, str] = field(default_factory=dict)  # by split, see `SegmentationDataset.describe`

    @property
    def ok(self) -> bool:
        return not self.problems

    def class_weights(self, kind: str, split: str = "train") -> np.ndarray:
        """(C,) suggested loss weights of a kind that `losses.class_weights_from_shares` knows."""
        own = self.splits[split]
        pixels, of_pictures = torch.from_numpy(own.pixels), torch.from_numpy(own.present_pixels)
        return class_weights_from_shares(pixels, of_pictures, kind).numpy()

    def render(self, limit: int = 20) -> Group:
        """Tables for `rich.print`: splits, classes, then at most `limit` problems and as many warnings."""
        parts: list[Table | str] = []
        if self.splits:
            parts.append(_split_table(self))
        for id_map in dict.fromkeys(self.id_maps.values()):
            of = [split for split, other in self.id_maps.items() if other == id_map]
            parts.append(escape(f"{', '.join(of)}: {id_map}"))
        if self.splits and self.labels is not None:
            parts.append(_class_table(self, self.labels))
        parts += [
            _line_table(lines, heading, style, limit)
            for lines, heading, style in (
                (self.problems, "problems", "red"),
                (self.warnings, "warnings", "yellow"),
            )
            if lines
        ]
        return Group(*parts)


def check_dataset(
    path: str | Path,
    format: str = "auto",
    splits: Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
    threads: int = 4,
    **options: Any,
) -> CheckReport:
    """Read every picture and mask of a data set and report; nothing it finds stops it.

    path, format, options: as for `open_dataset`. splits: by default train and val, and test where a folder or CamVid
    has one. progress: called with (pairs read, pairs in all).
    Problems: a split that cannot be opened, lone files, unreadable or cut off files, masks of another size,
    values outside the classes, palettes that show the colour map's colours under other numbers, a split in which no
    pixel has a label, a picture of train with the same pixels in another split. Warnings: classes never shown in
    train, pictures in no part, others that are there twice, masks that are void throughout, masks of two kinds,
    classes counted from masks of which most have no pixel.
    """
    report = CheckReport(str(path))
    datasets: dict[str, SegmentationDataset] = {}
    try:
        format = find_format(path) if format == "auto" else format
    except InputError as error:
        report.problems.append(str(error))
        return report
    if format != "scenes":
        options.setdefault("strict", False)
    for split in splits or ("train", "val", *(["test"] if format in WITH_TEST else [])):
        try:
            datasets[split] = open_dataset(path, split, format, **options)
        except MissingPartError as error:
            if splits or split != "test":
                _once(report.problems, str(error))
        except InputError as error:
            _once(report.problems, str(error))
    total = sum(len(dataset) for dataset in datasets.values())
    done = 0
    kinds: dict[str, Path] = {}
    seen: dict[str, tuple[str, str]] = {}  # digest of the pixels -> split and name of the first such picture
    for split, dataset in datasets.items():
        report.labels = dataset.labels
        report.id_maps[split] = dataset.describe()
        for line in dataset.unpaired:
            _once(report.problems, line)
        if dataset.doubt:
            _once(report.warnings, dataset.doubt)
        tally = _Tally(dataset)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for found in pool.map(tally.read, range(len(dataset))):
                tally.add(found, report)
                if found.digest:
                    _note_duplicate(report, seen, found.digest, split, found.name)
                done += 1
                if progress is not None:
                    progress(done, total)
        report.splits[split] = tally.report
        if tally.report.pictures and not tally.report.pixels.any():
            aim = "learn from" if split == "train" else "measure"
            report.problems.append(f"{split}: no pixel has a label, there is nothing to {aim}")
        kinds |= dataset.kinds_of_masks()
    if format == "folder" and datasets:
        _warn_of_outside(report, path, options)
    if len(kinds) > 1:
        report.warnings.append(
            f"masks are of two kinds: {kinds['colours']} holds colours, {kinds['mask values']} class numbers"
        )
    if not any(dataset.doubt and dataset.colours is None for dataset in datasets.values()):
        _warn_of_classes(report)  # counted classes that are doubtful are told once
    if "train" in datasets and "mask values" in kinds:
        _note_black_and_white(report, datasets["train"])
    return report


@dataclass
class _Finding:
    name: str
    problems: list[str]
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    counts: np.ndarray | None = None
    void: int = 0


class _Tally:
    """Reads pairs (in threads) and adds up (in one)."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset
        zeros = np.zeros(len(dataset.labels), dtype=np.int64)
        self.report = SplitReport(0, zeros, zeros.copy(), zeros.copy())

    def read(self, index: int) -> _Finding:
        dataset = self.dataset
        found = _Finding(dataset.name(index), [])
        image = mask = None
        try:
            image = dataset.image(index)
            found.digest = hashlib.blake2b(
                image.tobytes() + str(image.shape).encode(), digest_size=16
            ).hexdigest()
        except InputError as error:
            found.problems.append(str(error))
        try:
            mask = dataset.mask(index)
        except InputError as error:
            found.problems.append(str(error))
        if image is not None and mask is not None and image.shape[:2] != mask.shape:
            pair = dataset.pairs[index]
            found.problems.append(str(size_mismatch(image, mask, pair.image, pair.mask)))
        if mask is not None:
            if dataset.colours is not None:
                found.problems += _other_numbers(dataset, dataset.colours, dataset.pairs[index].mask)
            if strange := unknown_values(mask, dataset.labels):
                found.problems.append(
                    f"{dataset.pairs[index].mask}: {describe_values(strange, dataset.labels)}"
                )
            counts = np.bincount(mask.ravel(), minlength=dataset.labels.ignore_index + 1)
            found.counts, found.void = counts[: len(dataset.labels)], int(counts[dataset.labels.ignore_index])
            found.size = (mask.shape[0], mask.shape[1])
        return found

    def add(self, found: _Finding, report: CheckReport) -> None:
        report.problems += found.problems
        if found.counts is None or found.problems:
            return
        own = self.report
        own.pictures += 1
        own.pixels += found.counts
        own.void_pixels += found.void
        own.present += found.counts > 0
        own.present_pixels += (found.counts > 0) * found.counts.sum()
        sizes = [found.size] if own.pictures == 1 else [own.smallest, own.largest, found.size]
        own.smallest = min(sizes, key=lambda size: size[0] * size[1])
        own.largest = max(sizes, key=lambda size: size[0] * size[1])
        if not found.counts.any():
            report.warnings.append(f"{found.name}: the mask is void throughout")


def _other_numbers(dataset: SegmentationDataset, colours: Labels, path: Path) -> list[str]:
    """A line for a palette file that shows only colours of the colour map, some under another class's number."""
    stored = palette_colours(path)
    meant = dict.fromkeys(colours.void_colours, colours.ignore_index)
    meant |= {colour: number for number, colour in enumerate(colours.palette)}
    if not meant.keys() >= set(stored.values()):
        return []
    becomes = dataset.values
    for value, colour in stored.items():
        if becomes.get(value, value) != (number := becomes.get(meant[colour], meant[colour])):
            name = "void" if number == dataset.labels.ignore_index else dataset.labels.names[number]
            shown = ",".join(map(str, colour))
            return [
                f"{path}: a palette file, of which the numbers count, not the colours; but it stores {shown}, the "
                f"colour of {name}, as {value}: save it as RGB"
            ]
    return []


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)


def _note_duplicate(
    report: CheckReport, seen: dict[str, tuple[str, str]], digest: str, split: str, name: str
) -> None:
    first_split, first_name = seen.setdefault(digest, (split, name))
    if (first_split, first_name) == (split, name):
        return
    if first_split == split:
        report.warnings.append(f"{split}: {first_name} and {name} are the same picture")
        return
    lines = report.problems if "train" in (split, first_split) else report.warnings
    lines.append(f"the same picture is in two splits: {first_split}/{first_name}, {split}/{name}")


def _note_black_and_white(report: CheckReport, dataset: SegmentationDataset) -> None:
    train = report.splits["train"]
    if train.void_pixels and train.present.nonzero()[0].tolist() == [0] and not dataset.values:
        report.problems.append(black_and_white(pair.mask for pair in dataset.pairs))


def _warn_of_outside(report: CheckReport, path: str | Path, options: Mapping[str, Any]) -> None:
    splits = Splits(Path(path), options.get("images"), options.get("masks"))
    if outside := splits.outside():
        known = ", ".join(name for names in SPLITS.values() for name in names)
        report.warnings.append(
            f"{len(outside)} pictures are in no part, the first {outside[0].image}: parts are called {known}"
        )


def _warn_of_classes(report: CheckReport) -> None:
    train = report.splits.get("train")
    if train is None or report.labels is None or not train.pictures:
        return
    for index, name in enumerate(report.labels.names):
        if train.present[index] == 0:
            shown = [split for split, other in report.splits.items() if other.present[index] > 0]
            where = f" but in {', '.join(shown)}" if shown else ""
            report.warnings.append(f"class {index} ({name}) is in no train picture{where}")


def _split_table(report: CheckReport) -> Table:
    table = Table(title=escape(report.path), title_justify="left")
    for heading in ("split", "pictures", "void", "smallest", "largest"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, own in report.splits.items():
        void = own.void_pixels / max(1, own.void_pixels + int(own.pixels.sum()))
        sizes = [f"{width}x{height}" for height, width in (own.smallest, own.largest)]
        table.add_row(split, str(own.pictures), f"{void:.1%}", *sizes)
    return table


def _line_table(lines: Sequence[str], heading: str, style: str, limit: int) -> Table:
    table = Table(
        title=f"{len(lines)} {heading}", title_style=style, show_header=False, title_justify="left", box=None
    )
    for line in lines[:limit]:
        table.add_row(escape(line))
    if len(lines) > limit:
        table.add_row(f"... and {len(lines) - limit} more")
    return table


def _class_table(report: CheckReport, labels: Labels) -> Table:
    table = Table(title="classes", title_justify="left")
    table.add_column("class", no_wrap=True)
    for split in report.splits:
        table.add_column(f"{split} pixels", justify="right")
        table.add_column(f"{split} pictures", justify="right")
    weighted = "train" in report.splits and bool(report.splits["train"].pixels.any())
    if weighted:
        table.add_column("weight (median)", justify="right")
        table.add_column("weight (ENet)", justify="right")
        median, enet = report.class_weights("median"), report.class_weights("enet")
    for index, name in enumerate(labels.names):
        row = [f"{index} {escape(name)}"]
        for own in report.splits.values():
            row += [f"{own.shares[index]:.2%}", str(own.present[index])]
        if weighted:
            row += [f"{median[index]:.2f}", f"{enet[index]:.2f}"]
        table.add_row(*row)
    return table
