"""Training state on disk.

Safetensors with a JSON header, written whole or not at all, never a pickle.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flarekd import plain_json
from flarekd.errors import InputError, said
from flarekd.imaging.atomic import replacing
from flarekd.modelfile import save_tensors

KEY = "flarekd-checkpoint"
NAME = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"


def save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    facts: dict[str, Any],
) -> None:
    """Write everything that the next iteration depends on.

    Args:
        path: Replaced atomically.
        network: Its parameters and buffers.
        optimizer: Its state; parameters in the network's order.
        average: Averaged weights, empty where none are kept.
        facts: JSON-like: iteration, settings, gradient scale.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors.update({f"average.{name}": tensor for name, tensor in average.items()})
    plain: dict[str, dict[str, Any]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    save_tensors(path, tensors, {KEY: json.dumps({**facts, "optimizer": plain})})


def keep_previous(folder: Path) -> None:
    """Let the last checkpoint live on beside the one that is about to replace it."""
    if (folder / NAME).exists():
        # a copy, not a rename: at no moment is the folder without its last checkpoint
        with replacing(folder / PREVIOUS) as temporary:
            shutil.copyfile(folder / NAME, temporary)


def latest(folder: Path) -> Path:
    """The folder's newest checkpoint that can be read; the last one's path where there is none."""
    for name in (NAME, PREVIOUS):
        try:
            read_facts(folder / name)
        except InputError:
            continue
        return folder / name
    return folder / NAME


def remove(folder: Path) -> None:
    """Remove a folder's checkpoints."""
    for name in (NAME, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint alone.

    Raises:
        InputError: If the file is not one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = plain_json.parse((file.metadata() or {})[KEY])
            return facts
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is not a checkpoint: {said(error)}",
            "remove it and train without --resume",
        ) from error


def restore(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load a checkpoint into a network and its optimizer.

    Returns:
        The averaged weights and the facts.
    """
    facts = read_facts(path)
    average: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in facts.pop("optimizer").items()
    }
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a dict)
            part, _, name = key.partition(".")
            if part == "network":
                weights[name] = file.get_tensor(key)
            elif part == "average":
                average[name] = file.get_tensor(key)
            else:
                index, _, field = name.partition(".")
                state.setdefault(int(index), {})[field] = file.get_tensor(key)
    network.load_state_dict(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return average, facts
