"""Start a training from another model's weights, by name and shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flarekd.errors import InputError, listed
from flarekd.modelfile import ModelCard, file_hash, read_card, read_weights


@dataclass(frozen=True)
class Initial:
    """A model file to start from.

    Attributes:
        path: The file.
        sha256: Of its content; part of the run's identity.
        card: What it says of itself.
    """

    path: Path
    sha256: str
    card: ModelCard


def open_initial(path: Path) -> Initial:
    """Look at a model file before anything else is done.

    Raises:
        InputError: If it is not a model file.
    """
    card = read_card(path)
    return Initial(path, file_hash(path), card)


@torch.no_grad()
def start_from(initial: Initial, network: nn.Module) -> list[str]:
    """Copy the weights that `network` has too: the same name, the same shape.

    What is left keeps its own initialisation, as heads of another number of classes do.

    Args:
        initial: Where they come from.
        network: Where they go, on any device.

    Returns:
        Sentences for a person: what was taken, what was not and why.

    Raises:
        InputError: If nothing fits.
    """
    given, wanted = read_weights(initial.path), network.state_dict()
    taken = [
        name for name, own in wanted.items() if name in given and given[name].shape == own.shape
    ]
    if not taken:
        raise InputError(
            f"no weights of {str(initial.path)!r} ({initial.card.role}) fit this network",
            "start from a model of the same kind and channels, or without --init",
        )
    for name in taken:
        wanted[name].copy_(given[name])
    told = [f"{len(taken)} of {len(wanted)} tensors start from {initial.path}"]
    reshaped = [name for name in wanted if name in given and name not in taken]
    if reshaped:
        told.append(f"of another shape there, initialised anew: {_listed(reshaped)}")
    absent = [name for name in wanted if name not in given]
    if absent:
        told.append(f"not there, initialised anew: {_listed(absent)}")
    unused = [name for name in given if name not in wanted]
    if unused:
        told.append(f"not used: {_listed(unused)}")
    if initial.card.orientation != "LPS":
        told.append(f"it was trained along {initial.card.orientation}; from here on it is LPS")
    return told


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({listed(names, most=8)})"
