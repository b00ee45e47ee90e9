"""Class names, colours and the label that is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atrous.errors import InputError

Colour = tuple[int, int, int]

IGNORE_INDEX = 255  # the papers' "void" label
IGNORE_INDEX_16 = 65535  # the same in masks of 16 bits


@dataclass(frozen=True)
class Labels:
    """What the numbers in a mask mean: `names[i]` and `palette[i]` (RGB, 0..255) belong to class i.

    `ignore_index` marks pixels that count neither in the loss nor in a metric; every data set here delivers
    its void pixels under this number, whatever its files use. `void_colours` are the RGB colours that mean
    the same in a colour mask.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = IGNORE_INDEX
    void_colours: tuple[Colour, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore_index {self.ignore_index} is also the number of a class ({len(self.names)})"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(
        cls,
        names: Sequence[str],
        palette: Sequence[Colour] | None = None,
        void_colours: Sequence[Colour] = (),
    ) -> Labels:
        """Labels in these colours, or in VOC's.

        The label left out is 255, or 65535 where there are more than 255 classes.
        """
        colours = voc_palette(len(names)) if palette is None else tuple(palette)
        ignore_index = IGNORE_INDEX if len(names) <= IGNORE_INDEX else IGNORE_INDEX_16
        return cls(tuple(names), colours, ignore_index, tuple(void_colours))


def first_difference(names: Sequence[str], others: Sequence[str]) -> int | None:
    """The first class that has another name in as long a list; None where all are the same.

    Case, spaces and punctuation are spelling: "tv/monitor" is "TVmonitor". A name that is only a number, as class_3, is
    that of any class.
    """
    return next((i for i, (a, b) in enumerate(_spelled_alike(names, others)) if a != b), None)


def check_classes(model: Labels, data: Labels, guessed: bool = False) -> None:
    """InputError where the classes of a model are not those of the data: another number, another order, other things.

    A few names that stand nowhere on the other side, as airplane for aeroplane, are taken for other words. guessed: the
    model's names are only those that so many classes have most often, so their number alone counts.
    """
    ours, names = model.names, data.names
    if len(names) != len(ours):
        raise InputError(
            f"the model knows {len(ours)} classes ({', '.join(ours[:4])}...), "
            f"the data {len(names)} ({', '.join(names[:4])}...): they must be the same"
        )
    index = first_difference(ours, names)
    if index is not None and not guessed and not _are_other_words(ours, names):
        raise InputError(
            f"class {index} is {ours[index]!r} in the model and {names[index]!r} in the data: the classes must be the "
            "same in the same order; a folder's are those of its classes.txt, or of --data_options.classes"
        )


def _are_other_words(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether at least half of the classes, background aside, are the same and no other has moved."""
    pairs = _spelled_alike(names, others)
    differ = [(a, b) for a, b in pairs if a != b]
    same = len(pairs) - len(differ) - (pairs[0] == ("background", "background"))
    here, there = zip(*pairs, strict=True)
    return same >= len(differ) and not any(a in there or b in here for a, b in differ)


def _spelled_alike(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """The two names of each class by their letters; where one is only a number, the other's twice."""
    pairs = []
    for a, b in ((_letters(a), _letters(b)) for a, b in zip(names, others, strict=True)):
        pairs.append((b, b) if _is_number(a) else (a, a) if _is_number(b) else (a, b))
    return pairs


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold())) or name


def _is_number(letters: str) -> bool:
    return re.fullmatch(r"(class|label)?\d+", letters) is not None


def class_names(given: Any) -> list[str]:
    """The names of classes that a person gave; InputError where they are no names, each once."""
    names = given if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given) else []
    if not names or len(set(names)) < len(names):
        raise InputError(f"classes {given}: expected names, each once, like [cat, dog]")
    return list(names)


def voc_palette(count: int) -> tuple[Colour, ...]:
    """The PASCAL VOC colour map: the bits of the index dealt to red, green and blue, highest first."""

    def colour(index: int) -> Colour:
        channels = [0, 0, 0]
        for position in range(8):
            for channel in range(3):
                bit = index >> (3 * position + channel) & 1
                channels[channel] |= bit << (7 - position)
        return channels[0], channels[1], channels[2]

    return tuple(colour(index) for index in range(count))


_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
_CAMVID_NAMES = "sky building pole road pavement tree signsymbol fence car pedestrian bicyclist"

VOC = Labels(
    names=tuple(_VOC_NAMES.split()),
    palette=voc_palette(21),
    void_colours=((224, 224, 192),),  # colour 255 of the map: the rim around objects
)

# The 11 classes of SegNet's CamVid; its files say 11 for void, camvid.py turns that into 255.
CAMVID = Labels(
    names=tuple(_CAMVID_NAMES.split()),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    void_colours=((0, 0, 0),),
)

_CITYSCAPES_NAMES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck "
    "bus train motorcycle bicycle"
)

# The 19 classes that are evaluated, in the order of their train ids (cityscapesScripts, helpers/labels.py).
CITYSCAPES = Labels(
    names=tuple(name.replace("_", " ") for name in _CITYSCAPES_NAMES.split()),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    void_colours=((0, 0, 0),),
)
