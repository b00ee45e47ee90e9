"""The optimiser of a recipe, and the learning rate at each iteration."""

from __future__ import annotations

from typing import Any

import torch

from atrous import schedule
from atrous.config import Recipe
from atrous.training.run import Run


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
