"""How weights move: the optimizer, and the learning rate over time (Table 4)."""

from __future__ import annotations

import torch
from torch import nn

from flarekd.protocol import Optimizer
from flarekd.training.muon import Muon


def make_optimizer(network: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (Table 4), AdamW or Muon."""
    if settings.name == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
    if settings.name == "muon":
        return Muon(network.parameters(), settings.lr, settings.momentum, settings.weight_decay)
    return torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )


def poly_lr(initial: float, epoch: int, epochs: int) -> float:
    """The poly schedule: initial · (1 - epoch/epochs)^0.9, constant within an epoch.

    >>> round(poly_lr(0.01, 850, 1500), 7)
    0.0047113
    """
    return initial * float((1 - epoch / epochs) ** 0.9)


def warmup(iteration: int, length: int) -> float:
    """Factor that rises linearly to 1 over the first `length` iterations."""
    return min(1.0, (iteration + 1) / length) if length else 1.0
