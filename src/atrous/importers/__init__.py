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
from atrous.importers.files import SEVERAL, Content, checked, of_torch, read
from atrous.importers.names import indented
from atrous.importers.wrappers import AROUND, beginnings, without_parallel
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


DEEPEST = 8  # parts that all names of weights can have in front


def import_checkpoint(
    path_or_state_dict: str | Path | Mapping[str, Tensor],
    source: str | None = None,
    *,
    num_classes: int | None = None,
    allow_missing: str | None = None,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    **options: Any,
) -> Model:
    """Build the model that another project's checkpoint belongs to, with its weights.

    Args:
        path_or_state_dict: a file or folder, or weights by their names, also as a training script wraps them.
        source: a name of `SOURCES`. None: recognised by its content.
        num_classes: C. Another number than the file's gives the last layers new, random weights.
        allow_missing: "head" accepts a file that has the backbone alone.
        weights: of a file that holds several sets of them, the name of the one to take, such as "model_ema"; None: the
            network's own, not its moving average.
        classes: their names, or a file of them as a folder of pictures has: one a line, or a colour map. None: those
            that the weights' file tells, or that so many classes have most often.
        options: of the source, what weights alone cannot tell, such as output_stride; each defaults to its project's.

    Returns the model in eval mode, with `metadata` (normalisation, labels, protocol: `atrous.save` writes them) and
    `report`, the `Report` of where every weight went.

    Raises InputError for a file that is missing, damaged, refused or of no known source, an unknown option, another
    number of `classes`, and where weights are missing or have another shape.
    """
    if isinstance(path_or_state_dict, Mapping):
        content = checked(of_torch("weights", path_or_state_dict, weights))
    else:
        content = read(path_or_state_dict, weights)
    if weights is not None and content.kind not in SEVERAL:
        raise content.error(
            f"a {content.kind} file holds one set of weights, and none by the name of {weights!r}"
        )
    name, content = recognise(content, source)
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


def recognise(content: Content, source: str | None = None) -> tuple[str, Content]:
    """The source of a file, and its content without what its names of weights all, or those of one network, begin with.

    source: None is found; one that is given is not doubted. InputError where none fits, and for one that needs no
    import.
    """
    if "atrous" in content.extras:
        raise content.error("a checkpoint of atrous already: give it (or hub:OWNER/NAME) as it is")
    sources = SOURCES if source is None else {choose("source", source, SOURCES): SOURCES[source]}
    inner = content
    for _ in range(DEEPEST):
        found = _recognised(inner, sources)
        parts = beginnings(inner.tensors)
        if found is not None:
            return found, inner
        if len(parts) != 1 or parts[0] in inner.tensors:
            break
        inner = replace(inner, tensors=indented(parts[0], inner.tensors))
    networks = _networks(inner, {name: s for name, s in sources.items() if not s.backbones})
    # a common name goes before others, such as a teacher's
    chosen = {part: network for part, network in networks.items() if f"{part}." in AROUND} or networks
    if len(chosen) > 1:
        raise content.error(
            f"holds several sets of weights, {', '.join(chosen)}: say which with --weights NAME"
        )
    for part, (found, inside) in chosen.items():
        rest = {name: value for name, value in inner.tensors.items() if not name.startswith(f"{part}.")}
        others = [*inner.others, *(networks.keys() - chosen.keys())]
        return found, replace(inner, tensors=inside | rest, others=others)
    if source is not None:
        return source, content
    some = ", ".join(list(content.tensors)[:3])
    what = f"its weights are named {some}" if some else f"a {content.kind} file"
    raise content.error(f"of no source that is known here ({', '.join(SOURCES)}): {what}")


def _recognised(content: Content, sources: Mapping[str, Source]) -> str | None:
    return next((name for name, source in sources.items() if source.recognise(content)), None)


def _networks(content: Content, sources: Mapping[str, Source]) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """What the names of a whole network begin with -> (its source, its weights)."""
    found = {}
    for part in beginnings(content.tensors):
        inside = without_parallel(indented(part, content.tensors))
        name = _recognised(replace(content, tensors=inside), sources)
        if name is not None:
            found[part] = name, inside
    return found
