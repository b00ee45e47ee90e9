"""Names of the classes of public data sets, for weights that only tell how many there are."""

from __future__ import annotations

from atrous.checkpoint import Metadata
from atrous.data.class_names import ADE20K, COCO, COCO_STUFF, COCO_STUFF_182
from atrous.data.labels import CITYSCAPES, VOC, Labels


def labels_for(num_classes: int) -> Labels | None:
    """The data set that has this many classes: 19, 21, 91, 150, 171 or 182. None for other numbers."""
    known = (CITYSCAPES, VOC, COCO, ADE20K, COCO_STUFF, COCO_STUFF_182)
    return {len(labels): labels for labels in known}.get(num_classes)


def are_guessed(metadata: Metadata) -> bool:
    """Whether classes have the names of `labels_for`, and no training of ours says that they are."""
    known = labels_for(len(metadata.labels))
    return not metadata.recipe and known is not None and metadata.labels.names == known.names
