"""The forms in which training scripts save the same weights."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from atrous.errors import InputError
from atrous.importers import SOURCES, import_checkpoint
from atrous.importers.files import read
from parity.seeded import read_table

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2), "b.num": torch.tensor(3)}


def named(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in WEIGHTS.items()}


FORMS: dict[str, Callable[[], Any]] = {
    "plain": lambda: WEIGHTS,
    "DataParallel": lambda: named("module."),
    "torch.compile": lambda: named("_orig_mod."),
    "compiled DataParallel": lambda: named("_orig_mod.module."),
    "Lightning": lambda: {"state_dict": named("model."), "hyper_parameters": {"lr": 0.1}, "epoch": 3},
    "Lightning with a loss": lambda: {"state_dict": named("net.") | {"criterion.weight": torch.ones(3)}},
    "optimizer": lambda: {"model": WEIGHTS, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1)},
    "numpy's numbers": lambda: {"model_state": WEIGHTS, "best": np.float64(0.7), "all": np.zeros(3)},
    "average beside": lambda: {
        "state_dict": WEIGHTS,
        "state_dict_ema": {n: v + 9 for n, v in WEIGHTS.items()},
    },
    "average alone": lambda: {"model_ema": named("module.") | {"n_averaged": torch.tensor(3)}},
    "a name of their own": lambda: {
        "best_model_state": WEIGHTS,
        "optimizer": {"state": {0: {"m": torch.ones(2)}}},
    },
    "a name of their own in another": lambda: {"generator": {"state_dict": WEIGHTS}, "epoch": 3},
    "DeepSpeed": lambda: {"module": WEIGHTS, "global_steps": 3},
    "Lightning with an average": lambda: {
        "state_dict": named("model.") | named("ema.module.") | {"ema.updates": torch.tensor(3)}
    },
    "a generator's state": lambda: {"state_dict": WEIGHTS, "rng": np.random.get_state()},  # noqa: NPY002
    "numbers of every kind": lambda: {
        "state_dict": WEIGHTS,
        "numbers": [np.zeros(2, code) for code in "?bBhHiIlLqQefdgFDG"] + [np.uint16(3), np.bool_(True)],
    },
    "words, sets and queues": lambda: {
        "state_dict": WEIGHTS,
        "words": [np.array(["road", "sky"]), np.array([b"x"])],
        "set": frozenset([1, 2]),
        "queue": deque([0.5], maxlen=9),
    },
    "paths, dates and dictionaries": lambda: {
        "state_dict": WEIGHTS,
        "args": argparse.Namespace(out=Path("/a/b")),
        "when": [datetime.now(UTC), timedelta(3)],
        "log": defaultdict(list, loss=[1.0]),
        "count": defaultdict(int, a=3),
    },
    "parameters": lambda: WEIGHTS | {"a.weight": nn.Parameter(WEIGHTS["a.weight"])},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_found(form: str, legacy: bool, tmp_path: Path) -> None:
    torch.save(FORMS[form](), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    found = read(tmp_path / "w.pth").tensors
    others = {"criterion.weight", "n_averaged", "ema.updates", *named("ema.module.")}
    assert found.keys() - WEIGHTS.keys() <= others
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"refused: its pickle wants to run torch\.nn\.modules\.linear\.Linear"
    ):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_it_is_not_of_is_a_clear_error(source: str) -> None:
    with pytest.raises(InputError):
        import_checkpoint(WEIGHTS, source=source)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: torch.save(WEIGHTS, path, pickle_protocol=4), "refused: a pickle of protocol 4 or 5"),
        (lambda path: torch.save({"a": np.array([{}])}, path), r"wants to run numpy\.dtypes\.ObjectDType;"),
        (lambda path: torch.save({"a": eval}, path), "wants to run eval;"),
        (
            lambda path: torch.save({"teacher": {3: WEIGHTS}, "epoch": 3}, path),
            r"one of teacher \(dict\), epoch \(int\)",
        ),
        (
            lambda path: torch.save({"teacher": WEIGHTS, "student": WEIGHTS}, path),
            "several sets of weights, teacher, student: say which with --weights NAME",
        ),
        (lambda path: torch.save({"a.weight": np.zeros(2)}, path), r"one of a\.weight \(ndarray\)"),
        (lambda path: torch.save([torch.zeros(2)], path), "holds no dictionary of weights but a list"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    save: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    save(tmp_path / "w.pth")
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path / "w.pth")
    assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_file_that_holds_a_program_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "exported.pt2", "w") as archive:
        for name in (
            "models/model.json",
            "archive_format",
            "data/weights/weight_0",
        ):  # as torch.export.save names them
            archive.writestr(f"exported/{name}", "x")
    for file, kind in (("script.pt", "TorchScript"), ("exported.pt2", r"a file of torch\.export")):
        message = rf"{file}: {kind}, which is a program: save its weights, torch\.save\(model\.state_dict\(\), FILE\)$"
        with pytest.raises(InputError, match=message):
            read(tmp_path / file)


NO_FLOATS: dict[str, Callable[[Tensor], Tensor]] = {
    "of torch.int8": lambda w: w.to(torch.int8),
    "of torch.bool": lambda w: w.bool(),
    "of torch.complex64": lambda w: w.to(torch.complex64),
    "of torch.float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn),
    "quantised (torch.qint8)": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "sparse (torch.sparse_coo)": lambda w: w.to_sparse(),
    "a meta tensor, without values": lambda w: w.to("meta"),
}


@pytest.mark.filterwarnings("ignore:.*quantize")  # torch's, of its own quantised tensors
@pytest.mark.parametrize("kind", NO_FLOATS)
def test_a_weight_that_is_no_array_of_floats_is_refused(kind: str, tmp_path: Path) -> None:
    weights = WEIGHTS | {"a.bias": NO_FLOATS[kind](WEIGHTS["a.bias"])}
    message = re.escape(f"a.bias is {kind};")
    with pytest.raises(InputError, match=message):
        import_checkpoint(weights)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_lengths_are_weights(kind: torch.dtype, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2, dtype=kind), "a.index": torch.arange(3)}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth").tensors["a.weight"].dtype == kind


@pytest.fixture(scope="module")
def network() -> dict[str, Tensor]:
    """The weights of jfzhang95's v3+ on MobileNetV2, of whose names no first part is that of others' networks."""
    return read_table("jfzhang95_mobilenet_os16")[0]


def beginning(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("segmentor.", {}),
        ("_forward_module.model.", {}),
        ("_fsdp_wrapped_module.", {}),
        ("student.model.", {"loss.weight": torch.ones(3)}),
        ("model.", "teacher_model."),
        ("deeplab._orig_mod.", {"miou.confmat": torch.zeros(3, 3, dtype=torch.long)}),
    ],
)
def test_what_a_networks_names_begin_with(network: dict[str, Tensor], prefix: str, beside: Any) -> None:
    """Also where another set is as large, or a loss has weights; None of them is taken for the network's."""
    other = {name: 9 * value for name, value in network.items()}
    rest = beginning(beside, other) if isinstance(beside, str) else beside
    for source in (None, "jfzhang95"):
        model: Any = import_checkpoint(beginning(prefix, network) | rest, source)
        expected = import_checkpoint(network).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert {name for name, _ in model.report.unused} == rest.keys()
        told = any("not taken: teacher_model;" in note for note in model.report.notes)
        assert told == (beside == "teacher_model.")


def test_of_two_networks_one_must_be_chosen(network: dict[str, Tensor], tmp_path: Path) -> None:
    other = {name: value * 2 for name, value in network.items()}
    both = beginning("student.", network) | beginning("teacher.", other)
    with pytest.raises(InputError, match="sets of weights, student, teacher: say which with --weights NAME"):
        import_checkpoint(both)
    save_file(both, tmp_path / "both.safetensors")
    expected = import_checkpoint(other).state_dict()
    for given in (both, tmp_path / "both.safetensors", {"student": network, "teacher": other}):
        model = import_checkpoint(given, weights="teacher")  # type: ignore[arg-type]
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    for given in (both, tmp_path / "both.safetensors", {"model": network}):
        with pytest.raises(InputError, match="no weights 'x' in it; names begin with"):
            import_checkpoint(given, weights="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["beside", "inside", "wrapped"])
def test_an_average_beside_the_weights_is_told_and_can_be_taken(
    network: dict[str, Tensor], form: str
) -> None:
    average = {name: value * 2 for name, value in network.items()}
    given: Any = {
        "beside": {
            "model": network,
            "model_ema": beginning("module.", average) | {"n_averaged": torch.tensor(3)},
        },
        "inside": {"state_dict": beginning("model.", network) | beginning("ema.module.", average)},
        "wrapped": {"state_dict": network, "ema": {"state_dict": average}, "optimizer": {"state": {}}},
    }[form]
    name = "model_ema" if form == "beside" else "ema"
    own: Any = import_checkpoint(given)
    note = f"further weights are in the file, not taken: {name}; --weights NAME takes them"
    assert own.report.notes[-1] == note
    theirs: Any = import_checkpoint(given, weights=name)
    for model, weights in ((own, network), (theirs, average)):
        expected = import_checkpoint(weights).state_dict()
        assert all(torch.equal(value, expected[n]) for n, value in model.state_dict().items())


def test_a_backbone_in_another_network_is_not_taken_for_a_file_of_it() -> None:
    """Its head would be lost."""
    resnet = {name: value for name, value in resnet18(weights=None).state_dict().items() if "fc." not in name}
    head = {"classifier.weight": torch.ones(3, 512)}
    with pytest.raises(InputError, match="of no source that is known here"):
        import_checkpoint(beginning("encoder.", resnet) | head)
    assert (
        import_checkpoint(beginning("encoder.", resnet), allow_missing="head").config.backbone == "resnet18"
    )
