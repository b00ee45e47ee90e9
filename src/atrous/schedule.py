"""How the learning rate falls: a factor between 0 and 1 for each iteration."""

from __future__ import annotations


def poly(iteration: int, total: int, power: float = 0.9) -> float:
    """(1 - iteration / total) ^ power (DeepLab v2 sec. 4.1, after ParseNet)."""
    return (1 - min(iteration, total) / total) ** power


def step(iteration: int, every: int = 2000, factor: float = 0.1) -> float:
    """Tenfold drops every 2,000 iterations (DeepLab v1 sec. 5)."""
    return factor ** (iteration // every)


def warm_up(iteration: int, length: int) -> float:
    """Linear rise to 1 over the first `length` iterations; the first one already learns."""
    return min(1.0, (iteration + 1) / length) if length else 1.0
