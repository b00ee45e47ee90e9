"""What every data set delivers: pictures with masks, read as they are and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from atrous.data.id_maps import describe_colours, describe_values_map
from atrous.data.labels import IGNORE_INDEX, IGNORE_INDEX_16, Labels
from atrous.data.pictures import has_colours, is_turned, read_image, read_mask
from atrous.errors import InputError

if TYPE_CHECKING:  # importing it takes a second, which those who only predict need not wait for
    from torchvision import tv_tensors

Transform = Callable[["tv_tensors.Image", "tv_tensors.Mask"], tuple["tv_tensors.Image", "tv_tensors.Mask"]]


class Sample(NamedTuple):
    """One picture with its mask.

    image: (3, H, W) uint8, RGB; normalisation happens on the device, in the trainer.
    mask: (H, W) class numbers, `labels.ignore_index` for void; uint8, or int32 for more than 255 classes.
    name: the file's name within its data set, without suffix.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask
    name: str


class Pair(NamedTuple):
    """A picture's name and its two files."""

    name: str
    image: Path
    mask: Path


class SegmentationDataset(Dataset[Sample]):
    """Pictures and masks from files, for `torch.utils.data.DataLoader`.

    pairs: the files. labels: what the mask values mean. split: "train", "val", ...
    colours: the colour map for RGB masks. values: {value in the files: class or ignore_index}, for files that
    number their classes otherwise; values not named stay, or are an error where the table is `closed`. note: a
    word on how the masks were understood, for `describe`. doubt: why that may be wrong, and what to say then; "" as a
    rule. transform: called with (image, mask), returns both. unpaired: files left out because their partner is missing,
    one line each.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        labels: Labels,
        split: str,
        *,
        colours: Labels | None = None,
        values: Mapping[int, int] | None = None,
        closed: bool = False,
        note: str = "",
        doubt: str = "",
        transform: Transform | None = None,
        unpaired: Sequence[str] = (),
    ) -> None:
        self.pairs = list(pairs)
        self.labels = labels
        self.split = split
        self.colours = colours
        self.values = dict(values or {})
        self.closed = closed
        self.note = note
        self.doubt = doubt
        self.transform = transform
        self.unpaired = list(unpaired)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The name of picture `index`."""
        return self.pairs[index].name

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB, see `read_image`."""
        return read_image(self.pairs[index].image)

    def mask(self, index: int) -> np.ndarray:
        """Mask `index`, (H, W) class numbers after `values`, not yet checked against the classes."""
        path = self.pairs[index].mask
        mask = read_mask(path, self.colours)
        classes = replace_values(mask, self.values, closed=self.closed) if self.values else mask
        if self.closed and classes.min(initial=0) < 0:
            strange = ", ".join(map(str, np.unique(mask[classes < 0])[:5]))
            raise InputError(f"{path}: mask values {strange} do not exist in {self.note}")
        return with_one_void(classes, self.labels)

    def kinds_of_masks(self) -> dict[str, Path]:
        """A file that holds "colours" and one that holds "mask values", as far as there are such."""
        coloured = (self.colours is not None and has_colours(pair.mask) for pair in self.pairs)
        return {
            "colours" if colours else "mask values": pair.mask
            for colours, pair in zip(coloured, self.pairs, strict=True)
        }

    def describe(self) -> str:
        """One line: what the values and colours in the files become, and which are ignored."""
        kinds = self.kinds_of_masks()
        parts = []
        if self.colours is not None and "colours" in kinds:
            parts.append(f"colours {describe_colours(self.colours, self.values, self.labels)}")
        if "mask values" in kinds or not parts:
            about = f" ({self.note})" if self.note else ""
            parts.append(f"mask values{about}: {describe_values_map(self.values, self.labels, self.closed)}")
        return "; in other files ".join(parts)

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture (H, W, 3) uint8 RGB and mask (H, W); InputError for another size or unknown values."""
        _, image_path, mask_path = self.pairs[index]
        image, mask = self.image(index), self.mask(index)
        if (message := size_mismatch(image, mask, image_path, mask_path)) is not None:
            raise InputError(message)
        if found := unknown_values(mask, self.labels):
            raise InputError(f"{mask_path}: {describe_values(found, self.labels)}")
        return image, mask.astype(mask_dtype(self.labels), copy=False)

    def __getitem__(self, index: int) -> Sample:
        from torchvision import tv_tensors

        pixels, classes = self.arrays(index)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.from_numpy(classes))
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return Sample(image, mask, self.name(index))


def highest_class(mask: np.ndarray) -> int:
    """The highest number that is a class where nothing says how many there are; -1 without one.

    255 and 65535 are void. A class beyond 255 is higher anyway, and 255 is a class too then.
    """
    known = mask[(mask != IGNORE_INDEX) & (mask != IGNORE_INDEX_16)]
    return int(known.max()) if known.size else -1


def with_one_void(mask: np.ndarray, labels: Labels) -> np.ndarray:
    """Masks of 16 bits have 65535 for void, however few their classes: `labels.ignore_index` in its place."""
    if mask.max(initial=0) < IGNORE_INDEX_16:
        return mask
    return np.where(mask == IGNORE_INDEX_16, labels.ignore_index, mask)


def mask_dtype(labels: Labels) -> type[np.uint8] | type[np.int32]:
    """uint8 where the classes and the ignore label fit, otherwise int32."""
    return np.uint8 if max(len(labels) - 1, labels.ignore_index) <= 255 else np.int32


def replace_values(mask: np.ndarray, values: Mapping[int, int], closed: bool = False) -> np.ndarray:
    """Exchange the values of a mask by a table; the rest stay, or become -1 where the table is `closed`."""
    size = max(256, int(mask.max(initial=0)) + 1)
    table = np.full(size, -1, np.int32) if closed else np.arange(size, dtype=np.int32)
    for old, new in values.items():
        if old < len(table):
            table[old] = new
    return table[mask]


def unknown_values(mask: np.ndarray, labels: Labels) -> dict[int, int]:
    """{value: pixels} of all values that are neither a class nor the ignore label."""
    strange = (mask >= len(labels)) & (mask != labels.ignore_index)
    if not strange.any():
        return {}
    values, counts = np.unique(mask[strange], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def describe_values(found: Mapping[int, int], labels: Labels) -> str:
    """One phrase for what `unknown_values` found."""
    listed = ", ".join(f"{value} ({count} pixels)" for value, count in list(found.items())[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    plural = "values" if len(found) > 1 else "value"
    return (
        f"mask {plural} {listed}{more} outside the {len(labels)} classes 0..{len(labels) - 1} "
        f"and not {labels.ignore_index} (void)"
    )


def size_mismatch(image: np.ndarray, mask: np.ndarray, image_path: Path, mask_path: Path) -> str | None:
    """The message for a mask of another size than its picture, or None."""
    if image.shape[:2] == mask.shape:
        return None
    (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
    message = f"{mask_path}: the mask is {mask_width}x{mask_height} but the picture {image_path} is {width}x{height}"
    if image.shape[1::-1] == mask.shape and is_turned(image_path):
        message += ", as its EXIF orientation turns it: turn the mask too, or take the orientation out of the picture"
    return message
