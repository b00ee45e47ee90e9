from __future__ import annotations

from pathlib import Path

import pytest

from atrous.config import PAPERS, Protocol, Recipe, read_recipe, to_dict, write_recipe
from atrous.errors import InputError
from atrous.models import MODELS


def test_recipe_survives_yaml(tmp_path: Path) -> None:
    recipe = Recipe(scale=(0.5, 1.5), crop_size=(288, 352), model_options={"atrous_rates": [2, 4]}).resolved()
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_every_model_has_its_papers_settings() -> None:
    assert PAPERS.keys() == MODELS.keys()
    for model in PAPERS:
        values = to_dict(Recipe(model=model).resolved())
        open_questions = {key for key, value in values.items() if value is None}
        assert open_questions <= {
            "backbone", "output_stride", "pretrained", "init", "longer_side", "out", "iterations", "workers",
            "evaluate_every", "max_val", "ema", "clip_gradients", "save_every",
        }  # fmt: skip


def test_what_is_given_wins_over_the_paper() -> None:
    recipe = Recipe(model="pspnet", learning_rate=0.5, rotation=0.0).resolved()
    assert (recipe.learning_rate, recipe.rotation, recipe.crop_size) == (0.5, 0.0, 473)


def test_batch_norm_is_frozen_only_where_somebody_trained_it() -> None:
    assert Recipe(model="deeplab_v2").resolved().freeze_bn is False
    assert Recipe(model="deeplab_v2", pretrained="imagenet").resolved().freeze_bn is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: pspnet\n", r"unknown key 'modle': did you mean 'model'\?"),
        ("- pspnet\n", "key: value"),
        ("model: [\n", "not a readable YAML file"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_recipe(path)
    assert str(path) in str(error.value)


def test_missing_recipe_and_model() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such recipe"):
        read_recipe("nowhere.yaml")
    with pytest.raises(InputError, match=r"did you mean 'deeplab_v3plus'\?"):
        Recipe(model="deeplab_v3pls").resolved()


@pytest.mark.parametrize(
    "settings", [{"mode": "slide"}, {"scales": ()}, {"scales": (0.0,)}, {"mode": "fast"}, {"size": (0, 4)}]
)
def test_impossible_protocols(settings: dict) -> None:
    with pytest.raises(InputError):
        Protocol(**settings)
