"""The training run in three functions: set up, one epoch, evaluate; and one dataclass that is its state.

Devices, precision and launching are Lightning Fabric's; the loop is here and says what it does.
"""

from __future__ import annotations

import csv
import datetime
import importlib.util
import math
import os
import time
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from atrous import checkpoint, losses, schedule
from atrous.checkpoint import Metadata
from atrous.config import Normalization, Protocol, Recipe, from_dict, to_dict, write_recipe
from atrous.crf import CRFHead
from atrous.data import open_dataset
from atrous.data.base import SegmentationDataset, Transform
from atrous.data.transforms import train_transform
from atrous.errors import InputError
from atrous.evaluation import evaluate
from atrous.importers.initialise import Taken, initialise
from atrous.metrics import Metrics
from atrous.models import create_model
from atrous.objective import class_weights, loss_options
from atrous.predict import Predictor, pick_device
from atrous.visualize import colourize, overlay, panel

LOG_EVERY = 10  # iterations between two rows of the log
START_PICTURES = 64  # for the batch norms of weights that have them folded in
SAMPLES = 4  # validation pictures that are drawn at every evaluation


@dataclass
class Run:
    """The state of a training run."""

    recipe: Recipe
    fabric: Fabric
    model: Any  # what Fabric made of the nn.Module
    optimizer: Any
    loader: Any
    train_data: SegmentationDataset
    val_data: SegmentationDataset
    class_weights: Tensor | None
    folder: Path
    iterations: int  # in all
    iteration: int = 0  # done
    epoch: int = 0
    loss: float = math.nan  # mean since the last row of the log
    best_miou: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    taken: Taken | None = None  # from `recipe.init`

    @property
    def network(self) -> Any:
        """The model itself, as `create_model` built it."""
        return self.model.module

    @property
    def metadata(self) -> Metadata:
        """What the checkpoints of this run say besides their weights."""
        return checkpoint.metadata_of(self.network)


class Watcher(typing.Protocol):
    """Who wants to see a run go by; the command line draws it."""

    def started(self, run: Run) -> None: ...
    def stepped(self, run: Run) -> None: ...
    def evaluated(self, run: Run, metrics: Metrics) -> None: ...


def train(recipe: Recipe, watcher: Watcher | None = None) -> Run:
    """Run a recipe to its end. Ctrl-C leaves `last.safetensors` of the moment and raises KeyboardInterrupt on."""
    run = set_up(recipe)
    if watcher:
        watcher.started(run)
    every = run.recipe.evaluate_every or max(1, math.ceil(run.iterations / len(run.loader) / 20))
    try:
        while run.iteration < run.iterations:
            train_epoch(run, watcher)
            if run.epoch % every == 0 or run.iteration >= run.iterations:
                metrics = evaluate_run(run)
                if watcher:
                    watcher.evaluated(run, metrics)
    except KeyboardInterrupt:
        save(run, "last")
        raise
    return run


def set_up(recipe: Recipe) -> Run:
    """Data, model, optimiser and folder of a run; every InputError comes from here, before anything is written."""
    recipe = recipe.resolved()
    recipe.precision = pick_precision(recipe)
    loss_options(recipe)
    protocol = from_dict(Protocol, {"longer_side": recipe.longer_side, **recipe.protocol}, "protocol")
    folder = Path(recipe.out or f"runs/{recipe.model}-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    if (folder / "last.safetensors").exists():
        raise InputError(f"{folder}: already holds a run; give another --out, or remove it")
    fabric = Fabric(
        accelerator=recipe.device,
        devices=recipe.devices,
        precision=recipe.precision,  # type: ignore[arg-type]
        loggers=tensorboard(folder),
    )
    fabric.launch()
    seed_everything(recipe.seed, workers=True, verbose=False)

    train_data = open_dataset(recipe.data, recipe.train_split, recipe.format, **recipe.data_options)
    val_data = open_dataset(recipe.data, recipe.val_split, recipe.format, **recipe.data_options)
    train_data.transform = augmentation(recipe)
    labels = train_data.labels
    network: Any = create_model(
        recipe.model,
        backbone=recipe.backbone,
        num_classes=len(labels),
        output_stride=recipe.output_stride,
        pretrained=recipe.pretrained,
        **recipe.model_options,
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    taken = start(network, recipe, train_data)
    normalization = taken.normalization if taken else Normalization()
    for module in network.modules():
        if isinstance(module, CRFHead):
            module.set_normalization(normalization.mean, normalization.std)
    network = network.to(memory_format=torch.channels_last)

    workers = min(4, os.cpu_count() or 1) if recipe.workers is None else recipe.workers
    loader = DataLoader(
        train_data,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=len(train_data) >= (recipe.batch_size or 1),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=fabric.device.type == "cuda",
        collate_fn=collate,
    )
    network.metadata = Metadata(
        labels,
        normalization=normalization,
        protocol=protocol,
        recipe=to_dict(recipe),
    )
    model, optimizer = fabric.setup(network, make_optimizer(network, recipe))
    model.mark_forward_method("scores")
    weights = class_weights(train_data, recipe.class_weights)
    run = Run(
        recipe=recipe,
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        loader=fabric.setup_dataloaders(loader),
        train_data=train_data,
        val_data=val_data,
        class_weights=None if weights is None else weights.to(fabric.device),
        folder=folder,
        taken=taken,
        iterations=recipe.iterations or max(1, math.ceil(recipe.epochs * len(loader))),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / "recipe.yaml")
    return run


def start(network: nn.Module, recipe: Recipe, data: SegmentationDataset) -> Taken | None:
    """Give the network the weights of `recipe.init`, if any."""
    if recipe.init is None:
        return None

    def pictures() -> Tensor:
        indices = np.linspace(0, len(data) - 1, min(START_PICTURES, len(data))).astype(int)
        return collate([data[int(index)] for index in indices])[0]

    return initialise(network, recipe.init, pictures)


def pick_precision(recipe: Recipe) -> str:
    """What "auto" means on this machine."""
    if recipe.precision != "auto":
        return recipe.precision
    if pick_device(recipe.device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        fast = recipe.device in ("auto", "cpu") and supported()
    return "bf16-mixed" if fast else "32-true"


def train_epoch(run: Run, watcher: Watcher | None = None) -> None:
    """One pass over the training set, or what is left of the iterations."""
    recipe, network = run.recipe, run.network
    mean, std = (
        torch.tensor(values, device=run.fabric.device).view(-1, 1, 1)
        for values in (run.metadata.normalization.mean, run.metadata.normalization.std)
    )
    set_training_mode(network, bool(recipe.freeze_bn))
    window: list[float] = []
    started = time.perf_counter()
    for images, masks in run.loader:
        rate = learning_rate(run)
        x = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        loss = losses.segmentation_loss(
            run.model.scores(x),
            masks,
            loss=recipe.loss,
            options=loss_options(recipe),
            loss_at=recipe.loss_at or "labels",
            class_weights=run.class_weights,
            ignore_index=run.train_data.labels.ignore_index,
            aux_weight=recipe.aux_weight,
            align_corners=network.align_corners,
        )
        run.optimizer.zero_grad()
        run.fabric.backward(loss)
        run.optimizer.step()
        run.iteration += 1
        window.append(loss.item())
        if not math.isfinite(window[-1]):
            raise InputError(
                f"the loss became {window[-1]} at iteration {run.iteration}: lower --learning_rate "
                f"(now {recipe.learning_rate:g}) or raise --warmup"
            )
        now = time.perf_counter()
        run.seconds, started = run.seconds + now - started, now
        if run.iteration % LOG_EVERY == 0 or run.iteration == run.iterations:
            run.loss = sum(window) / len(window)
            window.clear()
            log(run, loss=run.loss, learning_rate=rate)
        if watcher:
            watcher.stepped(run)
        if run.iteration >= run.iterations:
            break
    run.epoch += 1


def evaluate_run(run: Run) -> Metrics:
    """Measure on the validation set; log, draw the samples, keep `last` and, where it is better, `best`."""
    predictor = Predictor(run.network, scales=(1.0,), flip=False, device=str(run.fabric.device))
    predictor.crf = None
    metrics = evaluate(predictor, run.val_data, limit=run.recipe.max_val)
    log(run, miou=metrics.miou, pixel_accuracy=metrics.pixel_accuracy)
    draw_samples(run, predictor)
    scores = metrics.to_dict()
    del scores["confusion"]
    run.metadata.scores = {**scores, "split": run.recipe.val_split, "iteration": run.iteration}
    save(run, "last")
    if metrics.miou > run.best_miou:
        run.best_miou = metrics.miou
        save(run, "best")
    return metrics


def augmentation(recipe: Any) -> Transform:
    """The training transform of a resolved recipe."""
    return train_transform(
        recipe.crop_size,
        scale=recipe.scale,
        flip=recipe.flip,
        jitter=recipe.jitter,
        rotation=recipe.rotation,
        blur=recipe.blur,
        base_size=recipe.longer_side,
    )


def make_optimizer(network: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser with the paper's multiples for the head's layers, or one rate for all."""
    if recipe.lr_groups == "paper":
        groups = network.learning_rate_groups()
    else:
        groups = [(list(network.parameters()), 1.0)]
    parameters = [{"params": list(members), "multiple": multiple} for members, multiple in groups]
    rate, decay = recipe.learning_rate or 0.0, recipe.weight_decay or 0.0
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)


def learning_rate(run: Run) -> float:
    """Set this iteration's rate in every group; returned: that of the backbone."""
    recipe = run.recipe
    if recipe.schedule == "step":
        factor = schedule.step(run.iteration, recipe.step_every)
    else:
        factor = schedule.poly(run.iteration, run.iterations, recipe.power)
    rate = (recipe.learning_rate or 0.0) * factor * schedule.warm_up(run.iteration, recipe.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["multiple"]
    return rate


def set_training_mode(network: nn.Module, freeze_bn: bool) -> None:
    """`network.train()`, with batch norm left at its running statistics, scales and shifts where it is frozen."""
    network.train()
    for module in network.modules():
        if freeze_bn and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().requires_grad_(False)


def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) uint8 pictures and (N, H, W) int64 masks."""
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in samples])
    masks = torch.stack([sample.mask.as_subclass(Tensor) for sample in samples])
    return images, masks.long()


def save(run: Run, name: str) -> None:
    if run.fabric.is_global_zero:
        checkpoint.save(run.network, run.folder / f"{name}.safetensors")


def draw_samples(run: Run, predictor: Predictor) -> None:
    """A panel of fixed validation pictures with truth and prediction."""
    labels = run.metadata.labels
    rows = []
    for index in np.linspace(0, len(run.val_data) - 1, min(SAMPLES, len(run.val_data))).astype(int):
        sample = run.val_data[int(index)]
        image = sample.image.permute(1, 2, 0).numpy()
        prediction = predictor.predict(image).labels
        rows.append([image, colourize(sample.mask.numpy(), labels), overlay(image, prediction, labels)])
    sheet = panel(rows, ("picture", "truth", "prediction"), labels)
    (run.folder / "samples").mkdir(exist_ok=True)
    Image.fromarray(sheet).save(run.folder / "samples" / f"{run.iteration:06d}.png")


def tensorboard(folder: Path) -> list[Any]:
    """A TensorBoard log in the run's folder, where the package is installed; log.csv is always written."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    return [TensorBoardLogger(folder, name="tensorboard", version="")]


def log(run: Run, **values: float) -> None:
    """A row in log.csv, and the same to TensorBoard."""
    row = {"iteration": run.iteration, "epoch": run.epoch, "seconds": round(run.seconds, 2), **values}
    run.history.append(row)
    columns = ("iteration", "epoch", "seconds", "loss", "learning_rate", "miou", "pixel_accuracy")
    path = run.folder / "log.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    run.fabric.log_dict(values, step=run.iteration)
