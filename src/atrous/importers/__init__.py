"""Foreign formats and projects: their files read without their software, their weights in our models.

One file per source: a table of names and the options that its models need (`torchvision.py` is the shortest to read).
`files.py` reads what a file holds, `convert.py` builds the model and tells where every weight went.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from atrous.data.class_files import read_classes
from atrous.data.labels import Labels, class_names
from atrous.errors import InputError, choose
from atrous.importers import (
    caffe,
    drn,
    huggingface,
    imagenet,
    jfzhang95,
    kazuto1011,
    mmseg,
    mobile_deeplab,
    paddle,
    semseg,
    smp,
    tensorflow,
    timm,
    torchvision,
    vainf,
    xception,
)
from atrous.importers.convert import Converted, Report, Source, build, two_classes, without_other_aux
from atrous.importers.files import Content, checked, read, unwrapped
from atrous.models import Model

__all__ = ["SOURCES", "Report", "import_checkpoint"]

# the first that recognises a file has it
SOURCES: dict[str, Source] = {
    "torchvision": torchvision.SOURCE,
    "tflite": mobile_deeplab.SOURCE,
    "jfzhang95": jfzhang95.SOURCE,
    "vainf": vainf.SOURCE,
    "drn": drn.SOURCE,
    "xception": xception.SOURCE,
    "caffe": caffe.SOURCE,
    "tensorflow": tensorflow.SOURCE,
    "paddle": paddle.SOURCE,
    "kazuto1011": kazuto1011.SOURCE,
    "semseg": semseg.SOURCE,
    "mmseg": mmseg.SOURCE,
    "smp": smp.SOURCE,
    "huggingface": huggingface.SOURCE,
    "timm": timm.SOURCE,
    "imagenet": imagenet.SOURCE,
}


def import_checkpoint(
    path_or_state_dict: str | Path | Mapping[str, Tensor],
    source: str | None = None,
    *,
    num_classes: int | None = None,
    allow_missing: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    **options: Any,
) -> Model:
    """Build the model that another project's checkpoint belongs to, with its weights.

    Args:
        path_or_state_dict: a file or folder, or weights by their names, also as a training script wraps them.
        source: a name of `SOURCES`. None: recognised by its content.
        num_classes: C. Another number than the file's gives the last layers new, random weights.
        allow_missing: "head" accepts a file that has the backbone alone.
        classes: their names, or a file of them as a folder of pictures has: one a line, or a colour map. None: those
            that the weights' file tells, or that so many classes have most often.
        options: of the source, what weights alone cannot tell, such as output_stride; each defaults to its project's.

    Returns the model in eval mode, with `metadata` (normalisation, labels, protocol: `atrous.save` writes them) and
    `report`, the `Report` of where every weight went.

    Raises InputError for a file that is missing, damaged, refused or of no known source, an unknown option, another
    number of `classes`, and where weights are missing or have another shape.
    """
    if isinstance(path_or_state_dict, Mapping):
        content = checked(unwrapped("weights", path_or_state_dict))
    else:
        content = read(path_or_state_dict)
    name = recognise(content) if source is None else choose("source", source, SOURCES)
    converted = convert_content(content, name, **options)
    if classes is not None:
        converted = replace(converted, labels=_named(classes, num_classes or converted.config.num_classes))
    return build(content, name, converted, num_classes, allow_missing)


def _named(classes: Sequence[str] | str | Path, count: int) -> Labels:
    if isinstance(classes, (str, Path)):
        labels, _ = read_classes(Path(classes))
        where = f"{classes}: "
    else:
        labels, where = Labels.named(class_names(classes)), ""
    if len(labels) != count:
        some = ", ".join(labels.names[:4]) + (", ..." if len(labels) > 4 else "")
        raise InputError(f"{where}{len(labels)} class names ({some}), but the model has {count} classes")
    return labels


def convert_content(content: Content, source: str, **options: Any) -> Converted:
    """The weights of a file in our names, and the model that they belong in; InputError where it is not as expected."""
    convert = SOURCES[source].convert
    known = list(inspect.signature(convert).parameters)[1:]
    for option in options:
        choose(f"option of {source}", option, known)
    try:
        return two_classes(without_other_aux(convert(content, **options)))
    except InputError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise content.error(f"no checkpoint of {source} that can be used here ({error})") from None


def recognise(content: Content) -> str:
    """The source of a file; InputError where none fits, and for one that needs no import."""
    if "atrous" in content.extras:
        raise content.error("a checkpoint of atrous already: give it (or hub:OWNER/NAME) as it is")
    for name, source in SOURCES.items():
        if source.recognise(content):
            return name
    some = ", ".join(list(content.tensors)[:3])
    found = f"its weights are named {some}" if some else f"a {content.kind} file"
    raise content.error(f"of no source that is known here ({', '.join(SOURCES)}): {found}")
