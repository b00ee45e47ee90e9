"""Names of the classes of public data sets, for weights that only tell how many there are."""

from __future__ import annotations

from atrous.checkpoint import Metadata
from atrous.data.class_names import ADE20K, COCO, COCO_STUFF, COCO_STUFF_182
from atrous.data.labels import CITYSCAPES, VOC, Labels, check_classes


def labels_for(num_classes: int) -> Labels | None:
    """The data set that has this many classes: 19, 21, 91, 150, 171 or 182. None for other numbers."""
    known = (CITYSCAPES, VOC, COCO, ADE20K, COCO_STUFF, COCO_STUFF_182)
    return {len(labels): labels for labels in known}.get(num_classes)


def check_same_classes(model: Metadata, data: Labels) -> None:
    """`check_classes`; of names that are those of `labels_for`, and that no training of ours set, the number alone."""
    known = labels_for(len(model.labels))
    guessed = not model.recipe and known is not None and model.labels.names == known.names
    check_classes(model.labels, data, guessed)
