"""Every recipe of recipes/: it can be read, says what it must, and takes two steps on data in its own layout."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import atrous
from atrous import train as training
from atrous.checkpoint import metadata_of
from atrous.cli import main
from atrous.config import PAPERS, RECIPES, Recipe, find_recipe, read_recipe, recipe_names, to_dict
from atrous.errors import InputError
from atrous.training.run import close_log

SIZE = (40, 52)  # of the drawn pictures
CROP = 33
# short, for what is at hand
OURS = ("scenes", "camvid_v3plus_mobilenet_v2", "camvid_v3plus_mobilenet_v2_imagenet", "box")
PAPER_RECIPES = [name for name in recipe_names() if name not in OURS and not name.startswith("camvid_")]


def draw(image: Path, mask: Path, classes: list[int], seed: int) -> None:
    """A picture of bands, each of another class, and its mask."""
    rng = np.random.default_rng(seed)
    band = np.sort(rng.integers(0, len(classes), SIZE[1]))
    values = np.broadcast_to(np.array(classes, np.uint8)[band], SIZE)
    pixels = rng.integers(0, 90, (*SIZE, 3)) + 40 * (values[..., None] % 4)
    for path, array in ((image, pixels.astype(np.uint8)), (mask, np.ascontiguousarray(values))):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def draw_voc(root: Path) -> None:
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f"2007_{i:06d}" for i in range(6)]
    for seed, name in enumerate(names):
        masks = root / "VOC2012" / "SegmentationClass"
        draw(root / "VOC2012" / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png", [0, 15, 255, 20], seed)
    for split, part in (("train", names[:4]), ("train_aug", names[:4]), ("val", names[4:])):
        (lists / f"{split}.txt").write_text("\n".join(part) + "\n")


def draw_cityscapes(root: Path) -> None:
    for i in range(6):
        split, stem = "train" if i < 4 else "val", f"aachen_000000_{i:06d}"
        picture = root / "leftImg8bit" / split / "aachen" / f"{stem}_leftImg8bit.png"
        # raw ids: ego vehicle, road, building, car
        draw(
            picture, root / "gtFine" / split / "aachen" / f"{stem}_gtFine_labelIds.png", [1, 7, 11, 26, 33], i
        )


def draw_ade20k(root: Path) -> None:
    for i in range(6):
        split, stem = "training" if i < 4 else "validation", f"ADE_train_{i:08d}"
        base = root / "ADEChallengeData2016"
        draw(
            base / "images" / split / f"{stem}.jpg",
            base / "annotations" / split / f"{stem}.png",
            [0, 1, 75, 150],
            i,
        )


def draw_coco_stuff(root: Path) -> None:
    for i in range(6):
        split, stem = "train2017" if i < 4 else "val2017", f"{i:012d}"
        draw(
            root / "images" / split / f"{stem}.jpg",
            root / "annotations" / split / f"{stem}.png",
            [255, 0, 91, 181],
            i,
        )


def draw_camvid(root: Path) -> None:
    for i in range(6):
        split, stem = "train" if i < 4 else "val", f"0001TP_{i:06d}"
        draw(root / split / f"{stem}.png", root / f"{split}annot" / f"{stem}.png", [0, 3, 10, 11], i)


def draw_folder(root: Path) -> None:
    for i in range(20):
        draw(root / "images" / f"{i}.jpg", root / "masks" / f"{i}.png", [0, 1, 2], i)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "voc": draw_voc,
    "cityscapes": draw_cityscapes,
    "ade20k": draw_ade20k,
    "coco_stuff": draw_coco_stuff,
    "camvid": draw_camvid,
    "folder": draw_folder,
}
CLASSES = {
    "voc": 21,
    "cityscapes": 19,
    "ade20k": 150,
    "coco_stuff": 171,
    "camvid": 11,
    "folder": 3,
    "scenes": 9,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, layout in LAYOUTS.items():
        layout(root / name)
    return root


def layout_of(name: str, recipe: Recipe) -> str:
    if recipe.data == "scenes" and name == "scenes":
        return "scenes"
    if recipe.format != "auto":
        return recipe.format
    return next((layout for layout in ("camvid", "voc") if name.startswith(layout)), "folder")


@pytest.mark.parametrize("name", recipe_names())
def test_two_steps(name: str, drawn: Path, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    layout = layout_of(name, recipe)
    tiny = dataclasses.replace(
        recipe,
        data="scenes" if layout == "scenes" else str(drawn / layout),
        data_options={"length": 4, "size": list(SIZE)} if layout == "scenes" else recipe.data_options,
        pretrained=None,
        init=None,
        crop_size=CROP,
        longer_side=None if recipe.longer_side is None else 48,
        batch_size=2,
        iterations=2,
        workers=0,
        device="cpu",
        precision="32-true",
        out=str(tmp_path / "run"),
    )
    run = training.set_up(tiny)
    before = {key: value.detach().clone() for key, value in run.network.named_parameters()}
    training.train_epoch(run)
    assert run.iteration == 2
    kept = recipe.data_options.get("classes")
    assert run.network.config.num_classes == (CLASSES[layout] if kept is None else 1 + len(kept))
    assert math.isfinite(run.loss) and run.loss > 0
    changed = [not np.array_equal(before[k], p.detach()) for k, p in run.network.named_parameters()]
    frozen = [not p.requires_grad for p in run.network.parameters()]
    assert any(frozen) == bool(recipe.freeze_bn)
    assert sum(changed) > 0.9 * (len(frozen) - sum(frozen))
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == run.recipe
    assert run.metadata.recipe == to_dict(run.recipe)
    close_log(run)
    shutil.rmtree(tmp_path / "run")


def test_every_paper_and_data_set_is_there() -> None:
    names = {
        "v1_vgg16_voc", "v1_vgg16_poly_voc", "v1_vgg16_msc_voc", "v2_vgg16_aspp_l_voc", "v2_resnet101_msc_voc",
        "v2_resnet101_cityscapes", "v2_resnet101_msc_coco_stuff_10k", "v2_resnet101_msc_coco_stuff_164k",
        "pspnet_resnet50_ade20k", "pspnet_resnet101_ade20k", "pspnet_resnet101_voc", "pspnet_resnet101_cityscapes",
        "v3_resnet101_os16_voc", "v3_resnet101_os8_voc", "v3_resnet101_cascade_voc", "v3_resnet101_cityscapes",
        "v3plus_resnet101_voc", "v3plus_xception65_voc", "v3plus_xception65_separable_voc",
        "v3plus_xception65_cityscapes", "v3plus_xception65_ade20k", "v3plus_mobilenet_v2_voc",
        "v3plus_mobilenet_v2_cityscapes", "quick", *OURS,
    }  # fmt: skip
    assert names <= set(recipe_names())


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_the_header_says_what_to_expect(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nformat:")]
    assert all(line.startswith("# ") for line in header.splitlines())
    assert re.search(r"^# .*\(.* et al\. 20\d\d, arXiv \d{4}\.\d{4,5}\)", header)
    for pattern in (
        r"^# paper: .+   ours: .+$",
        r"^# hardware: .+   time: .+$",
        rf"^# command: atrous train \S+ --recipe {name}$",
    ):
        assert re.search(pattern, header, re.MULTILINE), pattern


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_a_recipe_is_complete(name: str) -> None:
    """It spells out all that a paper settles, so that no later default changes it."""
    given = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(PAPERS[given["model"]]) <= set(given)
    assert {"format", "train_split", "val_split", "model_options", "optimizer", "lr_groups", "loss"} <= set(
        given
    )


# from the papers: crop, batch, iterations, rate, schedule, decay, scale, grid of the loss, output stride
FACTS = {
    "v1_vgg16_voc": (321, 20, 6000, 1e-3, "step", 5e-4, (1.0, 1.0), "logits", 8),
    "v1_vgg16_msc_voc": (321, 20, 6000, 1e-3, "step", 5e-4, (1.0, 1.0), "logits", 8),
    "v1_vgg16_poly_voc": (321, 10, 20000, 1e-3, "poly", 5e-4, (1.0, 1.0), "logits", 8),
    "v2_resnet101_msc_voc": (321, 10, 20000, 2.5e-4, "poly", 5e-4, (0.5, 1.5), "logits", 8),
    "pspnet_resnet50_ade20k": (473, 16, 150000, 0.01, "poly", 1e-4, (0.5, 2.0), "labels", 8),
    "pspnet_resnet101_cityscapes": (713, 16, 90000, 0.01, "poly", 1e-4, (0.5, 2.0), "labels", 8),
    "v3_resnet101_os16_voc": (513, 16, 30000, 0.007, "poly", 1e-4, (0.5, 2.0), "labels", 16),
    "v3_resnet101_os8_voc": (513, 16, 30000, 0.001, "poly", 1e-4, (0.5, 2.0), "labels", 8),
    "v3plus_xception65_voc": (513, 16, 30000, 0.007, "poly", 4e-5, (0.5, 2.0), "labels", 16),
}


@pytest.mark.parametrize("name", FACTS)
def test_values_of_the_papers(name: str) -> None:
    r = read_recipe(name)
    assert FACTS[name] == (
        r.crop_size, r.batch_size, r.iterations, r.learning_rate, r.schedule, r.weight_decay, r.scale, r.loss_at,
        r.output_stride,
    )  # fmt: skip
    assert (r.optimizer, r.momentum, r.power) == ("sgd", 0.9, 0.9)
    assert r.freeze_bn == (name in ("v2_resnet101_msc_voc", "v3_resnet101_os8_voc"))
    assert r.bn_momentum == (3e-4 if name.startswith("v3") else 0.1)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_recipe("quick") == RECIPES / "quick.yaml"
    assert read_recipe(RECIPES / "quick.yaml") == read_recipe("quick")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: pspnet\n")
    (tmp_path / "quick").write_text("model: deeplab_v1\n")
    assert read_recipe("mine.yaml").model == "pspnet"
    assert read_recipe("quick").model == "deeplab_v1"  # a file that is there wins
    with pytest.raises(InputError, match=r"unknown recipe 'v3plus_mobilnet_voc': did you mean 'v3plus_mob"):
        read_recipe("v3plus_mobilnet_voc")
    with pytest.raises(InputError, match=r"runs/quick: no such recipe"):
        read_recipe("runs/quick")


def test_what_a_recipe_leaves_to_its_user(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(drawn / "voc")
    for words, message in (
        (["--recipe", "quick"], "which data? give a folder"),
        (
            [data, "--recipe", "v3_resnet101_os8_voc", "--device", "cpu"],
            "v3_resnet101_os16_voc/last.safetensors",
        ),
        (
            [data, "--recipe", "quick", "--pretrained", "imagenet"],
            "give one, and null for the recipe's other",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["train", *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("recipe.yaml"))


def test_a_bare_name_and_flags_that_win(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --print_config shows is what the run folder and the checkpoint then hold."""
    monkeypatch.chdir(tmp_path)
    command = ["train", str(drawn / "voc"), "--recipe", "v3plus_mobilenet_v2_voc", "--pretrained", "null"]
    flags = "--model_options.width 0.35 --crop_size 33 --batch_size 2 --iterations 2 --workers 0 --device cpu"
    command += [*flags.split(), "--precision", "32-true", "--out", "run", "--loss", "{ce: 1, dice: 0.5}"]
    main([*command, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["crop_size"], printed["learning_rate"], printed["bn_momentum"]) == (33, 0.007, 3e-4)
    assert printed["model_options"] == {"separable": True, "width": 0.35}
    main(command)
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert stored == printed
    assert metadata_of(atrous.load(tmp_path / "run" / "last.safetensors")).recipe == printed


def test_the_second_stage_of_v3_starts_from_the_first(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output stride 16, then 8 with batch norm frozen, by the two recipes; a small ResNet in the large one's place."""
    monkeypatch.chdir(tmp_path)
    flags = (
        "--backbone resnet18 --model_options.multi_grid [1,2] --crop_size 33 --batch_size 2 --iterations 2"
    )
    tiny = [*flags.split(), *"--workers 0 --device cpu --precision 32-true".split()]
    data = str(drawn / "voc")
    main(["train", data, "--recipe", "v3_resnet101_os16_voc", "--pretrained", "null", *tiny])
    main(["train", data, "--recipe", "v3_resnet101_os8_voc", *tiny])
    first = atrous.load("runs/v3_resnet101_os16_voc/last.safetensors")
    second = atrous.load("runs/v3_resnet101_os8_voc/last.safetensors")
    assert (first.config.output_stride, second.config.output_stride) == (16, 8)
    ours, theirs = second.state_dict(), first.state_dict()
    kept = [name for name in ours if name.endswith(("running_mean", "running_var"))]
    assert all(ours[name].equal(theirs[name]) for name in kept)
    moved = [not ours[name].equal(theirs[name]) for name, p in second.named_parameters() if p.ndim == 4]
    assert all(moved)


def test_a_wheel_would_hold_the_recipes() -> None:
    """The folder at the top is the package's own, by the link that setuptools follows."""
    top = Path(__file__).parents[1]
    assert RECIPES.resolve() == (top / "recipes").resolve()
    assert '"recipes/*.yaml"' in (top / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_the_page_lists_it_with_the_header_s_numbers(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    numbers = re.search(r"^# paper: (.+?)   ours: (.+)$", text, re.MULTILINE)
    assert numbers is not None
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert f"| [{name}](../recipes/{name}.yaml) | {numbers[1]} | {numbers[2]} |" in page
