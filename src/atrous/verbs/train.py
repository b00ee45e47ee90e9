"""`atrous train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from atrous.config import Recipe, find_recipe, read_recipe, read_settings, to_dict
from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """train a model on a folder of pictures and masks, or on the built-in scenes"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("data", nargs="?", help='folder of the data set, or "scenes", the built-in drawn one')
    parser.add_argument(
        "--recipe", help="settings by name, such as v3plus_resnet101_voc, or a YAML file; flags win over it"
    )
    parser.add_argument("--resume", help="folder of a run that was stopped: go on as if it had not been")
    parser.add_argument("--print_config", nargs="?", const="", help="print the settings in full and stop")
    parser.add_class_arguments(Recipe, skip={"data"})
    if list(words[:1]) != ["train"]:
        return parser  # other verbs have flags of the same names
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag in ("--recipe", "--resume"):
            place = Path(value if equals else following)
            if flag == "--resume" and not (place / "recipe.yaml").exists():
                raise InputError(f"{place}: no run to resume here (recipe.yaml is missing)")
            path = place / "recipe.yaml" if flag == "--resume" else find_recipe(place)
            recipe = to_dict(read_recipe(path))
            if "data" not in read_settings(path):
                del recipe["data"]  # has to be given
            parser.set_defaults({key: value for key, value in recipe.items() if value is not None})
    return parser


def run(given: Namespace) -> None:
    values = {
        key: value for key, value in vars(given).items() if key not in ("recipe", "resume", "print_config")
    }
    recipe = Recipe(**values)
    if recipe.data is None:
        raise InputError('which data? give a folder, or "scenes" for the built-in drawn data set')
    changes: dict[str, Any] = {}
    if given.resume:
        if given.recipe:
            raise InputError("--resume goes on with the run's own recipe: leave out --recipe")
        stored = to_dict(read_recipe(Path(given.resume) / "recipe.yaml"))
        changes = {key: values[key] for key, value in to_dict(recipe).items() if value != stored[key]}
    if given.print_config is not None:
        import yaml

        print(yaml.safe_dump(to_dict(recipe.resolved()), sort_keys=False), end="")
        return
    import logging

    from atrous import terminal
    from atrous.train import resume, train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what we say in one line
    terminal.check_writable(changes.get("out") or given.resume or recipe.out)
    with terminal.TrainingDisplay() as display:
        try:
            run = resume(given.resume, display, **changes) if given.resume else train(recipe, display)
        except KeyboardInterrupt:
            if display.folder:
                terminal.say(f"stopped; go on with: atrous train --resume {display.folder}")
            raise
    if run.broken:
        terminal.say(
            f"left out {len(run.broken)} pictures that cannot be read, see {run.folder / 'broken.txt'}; "
            f"the first: {run.broken[0]}"
        )
    terminal.say(f"best mIoU {run.best_miou:.4f}   checkpoint {run.folder / 'best.safetensors'}")
