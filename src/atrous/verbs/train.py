"""`atrous train`."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from atrous.config import Recipe, read_recipe, to_dict
from atrous.errors import InputError
from atrous.verbs.parser import Parser


def arguments(words: Sequence[str]) -> Parser:
    """train a model on a folder of pictures and masks, or on the built-in scenes"""
    parser = Parser(description=arguments.__doc__)
    parser.add_argument("data", nargs="?", help='folder of the data set, or "scenes", the built-in drawn one')
    parser.add_argument(
        "--recipe", help="settings by name, such as v3plus_resnet101_voc, or a YAML file; flags win over it"
    )
    parser.add_argument("--print_config", nargs="?", const="", help="print the settings in full and stop")
    parser.add_class_arguments(Recipe, skip={"data"})
    after = [*words[1:], ""]
    for word, following in zip(words, after, strict=True):
        flag, equals, value = word.partition("=")
        if flag == "--recipe":
            recipe = to_dict(read_recipe(value if equals else following))
            parser.set_defaults({key: value for key, value in recipe.items() if value is not None})
    return parser


def run(given: Namespace) -> None:
    values = {key: value for key, value in vars(given).items() if key not in ("recipe", "print_config")}
    recipe = Recipe(**values)
    if recipe.data is None:
        raise InputError('which data? give a folder, or "scenes" for the built-in drawn data set')
    if given.print_config is not None:
        import yaml

        print(yaml.safe_dump(to_dict(recipe.resolved()), sort_keys=False), end="")
        return
    import logging

    from atrous import terminal
    from atrous.train import train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what we say in one line
    terminal.check_writable(recipe.out)
    with terminal.TrainingDisplay() as display:
        run = train(recipe, display)
    terminal.say(f"best mIoU {run.best_miou:.4f}   checkpoint {run.folder / 'best.safetensors'}")
