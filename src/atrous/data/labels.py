"""Class names, colours and the label that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]

IGNORE_INDEX = 255  # the papers' "void" label


@dataclass(frozen=True)
class Labels:
    """What the numbers in a mask mean: `names[i]` and `palette[i]` (RGB, 0..255) belong to class i."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(cls, names: Sequence[str], ignore_index: int = IGNORE_INDEX) -> Labels:
        """Labels in the VOC colours, for a data set that brings none."""
        return cls(tuple(names), voc_palette(len(names)), ignore_index)


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


VOC = Labels.named(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)

CAMVID = Labels(
    tuple("sky building pole road pavement tree signsymbol fence car pedestrian bicyclist".split()),
    (
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
    ignore_index=11,
)
