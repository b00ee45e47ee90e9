"""The training run in three functions: set up, one epoch, evaluate; `run.Run` is its state.

Devices, precision and launching are Lightning Fabric's; the loop is here and says what it does.
"""

from __future__ import annotations

import datetime
import functools
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from atrous import losses
from atrous.config import Normalization, Recipe, to_dict, write_recipe
from atrous.data import find_format, open_dataset
from atrous.data.base import Transform
from atrous.data.labels import Labels
from atrous.data.transforms import train_transform
from atrous.errors import InputError, choose
from atrous.evaluation import evaluate
from atrous.metrics import Metrics
from atrous.predict import Predictor, pick_device
from atrous.training.batches import (
    Batch,
    Batches,
    DataError,
    Drawn,
    class_pixels,
    collate,
    rare_class_weights,
    repeat_factors,
    steps,
)
from atrous.training.bounds import check_numbers, protocol_of
from atrous.training.ema import MovingAverage
from atrous.training.launch import launch
from atrous.training.network import make_network
from atrous.training.objective import Scores, class_weights, loss_options
from atrous.training.optimizer import learning_rate, make_optimizer
from atrous.training.run import (
    Run,
    Watcher,
    add_up,
    begin_log,
    check_finite,
    close_log,
    draw_samples,
    log,
    mean_of_processes,
    not_finite,
    note_broken,
    save,
    tensorboard,
)
from atrous.training.state import (
    is_due,
    keep,
    normalization,
    read_state,
    restore,
    resumed_recipe,
    save_state,
    sweep,
    whole_step,
)

LOG_EVERY = 10  # iterations between two rows of the log
SAMPLING: dict[str, Any] = {"uniform": None, "rare": rare_class_weights, "repeat": repeat_factors}


def train(recipe: Recipe, watcher: Watcher | None = None) -> Run:
    """Run a recipe to its end.

    Ctrl-C, a picture that cannot be read and a loading process that dies leave `last.safetensors` and the state of
    the moment, and are raised on: KeyboardInterrupt or InputError. `resume` goes on from there.
    """
    return go_on(set_up(recipe), watcher)


def resume(folder: str | Path, watcher: Watcher | None = None, **changes: Any) -> Run:
    """Take up the run in `folder` where its last state was kept: on a CPU it ends bit for bit as if never stopped.

    changes: settings of the recipe to have anew, of those in `state.FREE`. InputError for any other, and where
    there is no run.
    """
    folder = Path(folder)
    return go_on(set_up(resumed_recipe(folder, changes), of=folder), watcher)


def go_on(run: Run, watcher: Watcher | None = None) -> Run:
    """From where the run is to its end, which is the measurement after the last iteration."""
    if not run.fabric.is_global_zero:
        watcher = None
    if watcher:
        watcher.started(run)
    every = run.recipe.evaluate_every or max(1, math.ceil(run.iterations / steps_in_epoch(run) / 20))

    def is_measured_now() -> bool:
        at_end = run.epoch % every == 0 or run.iteration >= run.iterations
        return run.batch == 0 and run.evaluated < run.iteration and at_end

    try:
        while run.evaluated < run.iterations:
            if not is_measured_now():
                train_epoch(run, watcher)
            if is_measured_now():
                metrics = evaluate_run(run)
                if watcher:
                    watcher.evaluated(run, metrics)
    except (KeyboardInterrupt, DataError) as reason:
        keep(run)
        if isinstance(reason, DataError):
            raise InputError(f"{reason}; then go on with `atrous train --resume {run.folder}`") from None
        raise
    finally:
        close_log(run)
    return run


def steps_in_epoch(run: Run) -> int:
    return len(run.batches) // run.recipe.accumulate


def set_up(recipe: Recipe, of: Path | None = None) -> Run:
    """Data, model, optimiser and folder of a run. What is wrong in the recipe is an InputError, before anything is
    written; a picture or mask that cannot be read, and a full disk, are found on the way.

    of: the folder of a run that is to go on, whose state it takes.
    """
    recipe = recipe.resolved()
    check_numbers(recipe)
    recipe.precision = pick_precision(recipe)
    if recipe.format == "auto":
        recipe.format = find_format(recipe.data)  # so that a checkpoint knows it where the data is not
    loss_options(recipe)
    protocol = protocol_of(recipe)
    folder = Path(recipe.out or f"runs/{recipe.model}-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    if folder != of and (folder / "last.safetensors").exists():
        raise InputError(
            f"{folder}: already holds a run; go on with --resume, give another --out, or remove it"
        )
    choose("sampling", recipe.sampling, SAMPLING)
    state = read_state(of) if of else None
    fabric = launch(recipe, tensorboard(folder, state["progress"]["iteration"] if state else 0))
    folder = Path(fabric.broadcast(str(folder)))  # one name, of one moment
    seed_everything(recipe.seed, workers=True, verbose=False)

    train_data = open_dataset(recipe.data, recipe.train_split, recipe.format, **recipe.data_options)
    val_data = open_dataset(recipe.data, recipe.val_split, recipe.format, **recipe.data_options)
    train_data.transform = augmentation(recipe, train_data.labels)
    network, taken = make_network(recipe, train_data, fabric, None if state is None else normalization(state))

    batches = Batches(
        len(train_data),
        recipe.batch_size or 1,
        recipe.seed,
        per_step=recipe.accumulate,
        weights=None
        if (weigh := SAMPLING[recipe.sampling]) is None
        else weigh(class_pixels(train_data, recipe.skip_broken)[0]),
        process=fabric.global_rank,
        processes=fabric.world_size,
    )
    workers = min(4, os.cpu_count() or 1) if recipe.workers is None else recipe.workers
    loader = DataLoader(
        Drawn(train_data, recipe.skip_broken),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=fabric.device.type == "cuda",
        collate_fn=collate,
        generator=torch.Generator(),  # its own, so that it takes no numbers from those of the network
    )
    network.metadata = replace(network.metadata, protocol=protocol, recipe=to_dict(recipe))
    model, optimizer = fabric.setup(Scores(network), make_optimizer(network, recipe))
    if recipe.compile:
        for part in network.children():  # backbone, head: `scores` calls them in turn
            part.compile()
    weights = class_weights(train_data, recipe.class_weights, recipe.skip_broken)
    run = Run(
        recipe=recipe,
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        loader=fabric.setup_dataloaders(loader, use_distributed_sampler=False),
        batches=batches,
        train_data=train_data,
        val_data=val_data,
        class_weights=None if weights is None else weights.to(fabric.device),
        folder=folder,
        taken=taken,
        iterations=recipe.iterations
        or max(1, math.ceil(recipe.epochs * (len(batches) // recipe.accumulate))),
        saved=time.monotonic(),
    )
    if recipe.ema is not None:
        run.average = MovingAverage(network, recipe.ema)
    if state:
        restore(run, state)
    folder.mkdir(parents=True, exist_ok=True)
    if fabric.is_global_zero:
        sweep(folder)
        if of and folder != of:
            for path in [*of.glob("*.safetensors"), *of.glob("state.pt")]:
                shutil.copy2(path, folder)
        write_recipe(recipe, folder / "recipe.yaml")
    begin_log(run)
    return run


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
    """One pass over the training set, or what is left of it or of the iterations."""
    recipe = run.recipe
    run.network.train()
    run.batches.begin(run.epoch, run.batch)
    started = time.perf_counter()
    # nothing to load where a state was kept after the last step and before the measurement
    for step in steps(run.loader, recipe.accumulate) if run.iteration < run.iterations else ():
        note_broken(run, [line for batch in step for line in batch.broken])
        with whole_step():
            rate = learning_rate(run)
            loss = take_step(run, step)
            run.iteration += 1
            run.batch += len(step)
            run.window.append(loss)
            if not math.isfinite(loss):
                raise not_finite(run, loss, step)
            now = time.perf_counter()
            run.seconds, started = run.seconds + now - started, now
            if run.iteration % LOG_EVERY == 0 or run.iteration == run.iterations:
                run.loss = float(mean_of_processes(run, torch.tensor(sum(run.window) / len(run.window))))
                run.window.clear()
                log(run, loss=run.loss, learning_rate=rate)
        if is_due(run):
            keep(run)
        if watcher:
            watcher.stepped(run)
        if run.iteration >= run.iterations:
            break
    with whole_step():
        run.epoch, run.batch = run.epoch + 1, 0


def take_step(run: Run, step: list[Batch]) -> float:
    """One step of the optimiser along the mean of the batches' losses, which is returned."""
    recipe, fabric = run.recipe, run.fabric
    mean, std = mean_and_std(run.metadata.normalization, fabric.device)
    run.optimizer.zero_grad()
    found = []
    for number, batch in enumerate(step, 1):
        x = ((batch.images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with fabric.no_backward_sync(run.model, enabled=number < len(step) and fabric.world_size > 1):
            loss = losses.segmentation_loss(
                run.model(x),
                batch.masks,
                loss=recipe.loss,
                options=loss_options(recipe),
                loss_at=recipe.loss_at or "labels",
                class_weights=run.class_weights,
                ignore_index=run.train_data.labels.ignore_index,
                aux_weight=recipe.aux_weight,
                align_corners=run.network.align_corners,
                average=functools.partial(mean_of_processes, run),
            )
            fabric.backward(loss / len(step) if len(step) > 1 else loss)
        found.append(loss.detach())
    if recipe.clip_gradients is not None:
        fabric.clip_gradients(
            run.model, run.optimizer, max_norm=recipe.clip_gradients, error_if_nonfinite=False
        )
    run.optimizer.step()
    if run.average:
        run.average.update(run.network)
    return sum(loss.item() for loss in found) / len(step)  # last: the device is waited for


@functools.cache
def mean_and_std(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each, on the device."""
    values = torch.tensor([normalization.mean, normalization.std], dtype=torch.float32, device=device)
    return values[0].view(-1, 1, 1), values[1].view(-1, 1, 1)


def evaluate_run(run: Run) -> Metrics:
    """Measure on the validation set; log, draw the samples, keep `last` and, where it is better, `best`."""
    check_finite(run)
    predictor = Predictor(
        run.measured,
        scales=(1.0,),
        flip=False,
        crf=False,
        output_stride=run.network.config.output_stride,
        device=str(run.fabric.device),
        runtime="eager",
    )
    broken: list[str] | None = [] if run.recipe.skip_broken else None
    try:
        metrics = evaluate(
            predictor,
            run.val_data,
            limit=run.recipe.max_val,
            broken=broken,
            shard=(run.fabric.global_rank, run.fabric.world_size),
            add_up=functools.partial(add_up, run),
        )
    except InputError as error:
        raise DataError(str(error)) from None
    finally:
        note_broken(run, broken or [])
    log(run, miou=metrics.miou, pixel_accuracy=metrics.pixel_accuracy)
    draw_samples(run, predictor)
    scores = metrics.to_dict()
    del scores["confusion"]
    run.metadata.scores = {**scores, "split": run.recipe.val_split, "iteration": run.iteration}
    save(run, "last")
    if metrics.miou > run.best_miou:
        run.best_miou = metrics.miou
        save(run, "best")
    run.evaluated = run.iteration
    save_state(run)
    return metrics


def augmentation(recipe: Any, labels: Labels) -> Transform:
    """The training transform of a resolved recipe, for data of these classes."""
    return train_transform(
        recipe.crop_size,
        scale=recipe.scale,
        flip=recipe.flip,
        jitter=recipe.jitter,
        rotation=recipe.rotation,
        blur=recipe.blur,
        base_size=recipe.longer_side,
        ignore_index=labels.ignore_index,
    )
