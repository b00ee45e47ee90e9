from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

import atrous


def test_the_public_names_stay() -> None:
    assert sorted(atrous.__all__) == [
        "DenseCRF",
        "InputError",
        "Metrics",
        "Predictor",
        "Segmentation",
        "__version__",
        "create_model",
        "evaluate",
        "hub",
        "import_checkpoint",
        "load",
        "open_dataset",
        "save",
    ]


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(atrous.__all__) - {"__version__"}:
        thing = getattr(atrous, name)
        assert callable(thing) or name == "hub", name
        assert thing.__doc__, f"{name} has no docstring"


def test_importing_loads_neither_torch_nor_numpy() -> None:
    code = "import atrous, atrous.cli, sys; print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_function_is_not_hidden_by_a_module_of_its_name() -> None:
    import atrous.cli
    import atrous.evaluation

    assert atrous.evaluate is atrous.evaluation.evaluate


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == atrous.__version__
