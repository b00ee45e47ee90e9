"""What a file of weights holds, whatever project wrote it. Files are untrusted: none of them may run code.

kind            recognised by                                   read with
safetensors     its header, or a folder of transformers         safetensors
torch           zip or pickle of torch.save                     torch.load(weights_only=True)
tflite          "TFL3"                                          `tflite.Graph`, later, by its source
caffe           .caffemodel                                     `caffemodel.read_blobs`
tensorflow      a checkpoint's .index (also "model.ckpt", its   `tensorflow_files.read_checkpoint`
                folder), or a frozen graph's .pb                `tensorflow_files.read_frozen_graph`
paddle          .pdparams                                       `pdparams.read_pdparams`
"""

from __future__ import annotations

import argparse
import json
import pickle
import pickletools
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atrous.errors import InputError
from atrous.importers.caffemodel import read_blobs
from atrous.importers.pdparams import read_pdparams
from atrous.importers.tensorflow_files import checkpoint_index, read_checkpoint, read_frozen_graph
from atrous.importers.wrappers import named_alike, unwrapped

# what save_pretrained of transformers and segmentation_models writes, and what it writes beside -> in extras
PRETRAINED = ("model.safetensors", "pytorch_model.bin")
SEVERAL = ("torch", "safetensors")  # kinds that can hold more than one set of weights
BESIDE = {"config.json": "config", "preprocessor_config.json": "preprocessor"}
PROTOCOL_4 = frozenset(op.code.encode("latin1") for op in pickletools.opcodes if op.proto >= 4)
PROGRAMS = {
    "constants.pkl": "TorchScript",
    "models/model.json": "a file of torch.export",
}  # by a name in the archive
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# how the names of weights end, in all projects; other tensors, such as counts and indices, may be of any kind
WEIGHT = re.compile(r"(weights?|bias(es)?|mean|var(iance)?|gamma|beta)$")


class _LeftOut:
    """Stands for an object of another project's training log, and keeps nothing of it."""

    def __setstate__(self, state: object) -> None:
        pass


def _leave_out(*_: object) -> None:
    """Stands for a function or class that such a log names; it does nothing."""


def _row(*_: object) -> list[Any]:
    """Stands for collections.deque."""
    return []


def _dictionary(*_: object) -> dict[Any, Any]:
    """Stands for collections.defaultdict, without what it would fill gaps with."""
    return {}


# Plain data that training scripts save beside the weights; building one runs no code of the file's choice.
BUILTINS = ("builtins", "__builtin__")  # Python 3, Python 2
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # numpy 1, numpy 2
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?SU"},
    # what mmengine's training log is made of: the name of its class, and getattr for its methods; neither is run
    (_LeftOut, "mmengine.logging.history_buffer.HistoryBuffer"),
    *((_leave_out, f"{b}.{name}") for b in BUILTINS for name in ("getattr", "list", "dict", "int", "float")),
    (_dictionary, "collections.defaultdict"),
    (_row, "collections.deque"),
    *((frozenset, f"{b}.frozenset") for b in BUILTINS),
    *(
        (_leave_out, f"pathlib.{pure}{system}Path")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    ),
    *((_leave_out, f"datetime.{name}") for name in ("datetime", "date", "time", "timedelta", "timezone")),
]


@dataclass
class Content:
    """What a file holds.

    kind: see the top of this file. tensors: name -> tensor. extras: what lies beside them, such as the values of
    config.json ("config") and preprocessor_config.json ("preprocessor"), or a training script's own. others: names of
    further sets of the same weights, such as a moving average, which `read` takes instead when it is told to.
    """

    path: str
    kind: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def error(self, reason: str) -> InputError:
        return InputError(f"{self.path}: {reason}")


def read(path: str | Path, weights: str | None = None) -> Content:
    """Read a file, or a folder in the layout of transformers, whose file tells the same when it is named itself.

    weights: which ones, where a file of `SEVERAL` holds more than one set (`wrappers.unwrapped`).

    Raises InputError where there is none, it is damaged, of no known kind, or a pickle that asks for more than data.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, weights)
    index = checkpoint_index(path)
    if index is not None:
        return checked(Content(str(path), "tensorflow", read_checkpoint(index)))
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not begin:
        raise InputError(f"{path}: an empty file")
    for kind, (fits, reader) in READERS.items():
        if fits(begin, path):
            content = reader(path, weights) if kind in SEVERAL else reader(path)
            content.kind = kind
            if path.name in PRETRAINED:
                content.extras |= _beside(path.parent)
            return checked(content)
    raise InputError(f"{path}: no file of weights that is known here ({', '.join(READERS)})")


def read_torch(path: Path, weights: str | None = None) -> Content:
    """A file of torch.save: a state dict, or one wrapped in a training script's dictionary."""
    program = _program(path)
    if program is not None:
        raise InputError(
            f"{path}: {program}, which is a program: save its weights, torch.save(model.state_dict(), FILE)"
        )
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refusal(str(error))}") from None
    except Exception as error:  # a damaged pickle can end in any of them
        raise InputError(f"{path}: not a readable file of torch.save ({_first_line(error)})") from None
    return of_torch(str(path), found, weights)


def of_torch(path: str, found: object, weights: str | None = None) -> Content:
    """What a dictionary of torch's holds."""
    return Content(path, "torch", *unwrapped(path, found, weights))


def _program(path: Path) -> str | None:
    """What a file is that holds code beside weights, by the names in its archive; None for one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # a damaged archive, or none: torch.load says so
        return None
    return next((what for name, what in PROGRAMS.items() if name in names), None)


def _refusal(said: str) -> str:
    """What torch's unpickler says, without its advice to run the file nevertheless."""
    reason = said.split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
    asked = re.search(r"GLOBAL ([\w.]+)", said) or re.search(r"(?:got|function) <\w+ '?([\w.]+)", reason)
    if asked:
        return f"refused: its pickle wants to run {asked[1]}; only tensors and plain data are read, nothing was run"
    operand = re.match(r"Unsupported operand (\d+)", reason)
    if operand and chr(int(operand[1])).encode("latin1") in PROTOCOL_4:
        return (
            "refused: a pickle of protocol 4 or 5, which cannot be read without running it; "
            "write it again with torch.save(weights, path), which takes protocol 2"
        )
    return f"not a readable file of torch.save ({reason})"


def checked(content: Content) -> Content:
    """InputError for a weight that is no plain array of floating-point numbers."""
    for name, tensor in content.tensors.items():
        kind = _not_floats(tensor)
        if kind and WEIGHT.search(name):
            raise content.error(f"{name} is {kind}; weights are arrays of floats of 16, 32 or 64 bits")
    return content


def _not_floats(tensor: Tensor) -> str | None:
    """What kind of tensor it is, where it cannot be a weight."""
    if tensor.is_meta:
        return "a meta tensor, without values"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout})"
    return None if tensor.dtype in FLOATS else f"of {tensor.dtype}"


def read_safetensors(path: Path, weights: str | None = None) -> Content:
    """A safetensors file; its header's words go to `extras`."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            extras = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({_first_line(error)})") from None
    tensors, others = named_alike(str(path), tensors, weights)
    return Content(str(path), "safetensors", tensors, extras, others)


def _read_folder(path: Path, weights: str | None) -> Content:
    """Weights in a folder: of transformers and segmentation_models, or of TensorFlow."""
    found = next((path / name for name in PRETRAINED if (path / name).is_file()), None)
    index = next((path / f"{n}.index.json" for n in PRETRAINED if (path / f"{n}.index.json").is_file()), None)
    if found is None and index is not None:
        return _read_shards(index, weights)
    found = found or checkpoint_index(path) or next(iter(path.glob("frozen_inference_graph.pb")), None)
    if found is None:
        raise InputError(f"{path}: a folder without {', '.join(PRETRAINED)} or a TensorFlow checkpoint")
    content = read(found, weights)
    content.path = str(path)
    return content


def _read_shards(index: Path, weights: str | None) -> Content:
    """The files beside an index that transformers spread a model's weights over."""
    spread = _read_json(index).get("weight_map")
    files = sorted({str(file) for file in spread.values()}) if isinstance(spread, dict) else []
    if not files or any(Path(file).name != file for file in files):
        raise InputError(f"{index}: its weight_map names no files beside it")
    content, *more = (read(index.parent / file, weights) for file in files)
    for part in more:
        content.tensors |= part.tensors
    content.path = str(index.parent)
    content.extras |= _beside(index.parent)
    return content


def _beside(folder: Path) -> dict[str, Any]:
    """What the configurations beside a file of weights hold."""
    return {extra: _read_json(folder / name) for name, extra in BESIDE.items() if (folder / name).is_file()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not readable JSON ({_first_line(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no dictionary")
    return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_safetensors(begin: bytes, path: Path) -> bool:
    """Eight bytes of length, then the header, which is JSON."""
    return begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") <= path.stat().st_size


# kind -> (how it is recognised by its first 16 bytes, how it is read)
READERS: dict[str, Any] = {
    "safetensors": (_is_safetensors, read_safetensors),
    "tflite": (lambda begin, path: begin[4:8] == b"TFL3", lambda path: Content(str(path), "tflite")),
    "caffe": (
        lambda begin, path: path.suffix == ".caffemodel",
        lambda path: Content(str(path), "caffe", read_blobs(path)),
    ),
    "tensorflow": (
        lambda begin, path: path.suffix == ".pb",
        lambda path: Content(str(path), "tensorflow", read_frozen_graph(path)),
    ),
    "paddle": (
        lambda begin, path: path.suffix == ".pdparams",
        lambda path: Content(str(path), "paddle", *read_pdparams(path)),
    ),
    "torch": (lambda begin, path: begin[:4] == b"PK\x03\x04" or begin[:1] == b"\x80", read_torch),
}
