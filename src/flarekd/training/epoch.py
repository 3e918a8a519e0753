"""What is added up over one epoch, for its line in log.jsonl."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from flarekd.errors import InputError
from flarekd.training.ranks import ALONE, Ranks

FLUSH = 10
"""Steps whose results stay on the GPU before they are fetched: fetching each would idle it."""


class DivergedError(InputError):
    """The loss is not a number any more."""


class CollapsedError(InputError):
    """The network labels nothing but background."""


class Epoch:
    """Sums over the steps of an epoch.

    Attributes:
        losses: Of each step, fetched so far.
        foreground: Voxels the network has labelled as foreground.
        waited_s: Time the steps waited for their data.
    """

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        """Begin, or go on from what `facts` of a checkpoint says."""
        facts = facts or {"losses": [], "dice": [], "foreground": 0}
        self.losses: list[float] = list(facts["losses"])
        self._dice: list[float] = list(facts["dice"])
        # steps that had the class annotated; checkpoints of before knew of no other
        self._seen: list[int] = list(facts.get("seen", [len(self.losses)] * len(self._dice)))
        self.foreground = int(facts["foreground"])
        self.waited_s = 0.0
        self._began = time.monotonic()
        self._new = 0
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, dice: Tensor, foreground: Tensor) -> None:
        """Add a step; its tensors are fetched later.

        Args:
            loss: Scalar.
            dice: Soft Dice (classes - 1,), NaN of a class that the step did not have annotated.
            foreground: Scalar count of voxels.
        """
        self._pending.append((loss, dice, foreground))
        self._new += 1
        if len(self._pending) >= FLUSH or loss.device.type == "cpu":
            self.flush()

    def flush(self) -> None:
        """Fetch what is pending.

        Raises:
            DivergedError: If a loss is NaN or infinite.
        """
        for loss, dice, foreground in self._pending:
            value = float(loss)
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} in step {len(self.losses) + 1} of its epoch",
                    "lower optimizer.lr, raise optimizer.warmup, or set precision: bf16; "
                    "then train anew",
                )
            self.losses.append(value)
            new, seen = dice.double().nan_to_num(0).tolist(), (~dice.isnan()).tolist()
            self._dice = [a + b for a, b in zip(self._dice or [0.0] * len(new), new, strict=True)]
            self._seen = [a + b for a, b in zip(self._seen or [0] * len(seen), seen, strict=True)]
            self.foreground += int(foreground)
        self._pending.clear()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint needs to go on within the epoch, JSON-like."""
        self.flush()
        return {
            "losses": self.losses,
            "dice": self._dice,
            "seen": self._seen,
            "foreground": self.foreground,
        }

    def note(self) -> str:
        """Loss, mean soft Dice, speed and waiting, for a progress line."""
        if not self.losses:
            return ""
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        known = [total / seen for total, seen in zip(self._dice, self._seen, strict=True) if seen]
        dice = sum(known) / max(len(known), 1)
        return (
            f"loss {self.losses[-1]:.3f} · DSC {dice:.3f} · {self._new / elapsed_s:.2f} it/s"
            f" · {100 * self.waited_s / elapsed_s:.0f} % waiting for data"
        )

    def record(
        self, number: int, iteration: int, lr: float, ranks: Ranks = ALONE
    ) -> dict[str, Any]:
        """The epoch as one JSON-like record, over all ranks.

        ``dsc`` is soft, a class, over the epoch's batches that had it annotated, None where none
        had; ``foreground`` counts voxels.
        """
        self.flush()
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        count = len(self.losses)
        sums = [sum(self.losses), self.foreground, *self._dice, *self._seen]
        whole = ranks.total(torch.tensor(sums, dtype=torch.float64)) / ranks.size
        loss, foreground, *classes = whole.tolist()
        dice, seen = classes[: len(self._dice)], classes[len(self._dice) :]
        return {
            "epoch": number,
            "iteration": iteration,
            "lr": lr,
            "loss": loss / count,
            "dsc": [round(d / s, 4) if s else None for d, s in zip(dice, seen, strict=True)],
            "foreground": round(foreground * ranks.size),
            "seconds": round(elapsed_s, 2),
            "iterations_per_s": round(self._new / elapsed_s, 3),
            "data_wait_share": round(self.waited_s / elapsed_s, 4),
        }


def check_collapse(record: dict[str, Any], collapse_epoch: int) -> None:
    """Stop a network that has learned to label nothing.

    Args:
        record: Of an epoch, as `Epoch.record` makes it.
        collapse_epoch: The epoch by which there must be foreground; 0 never asks.

    Raises:
        CollapsedError: If that epoch has come and no voxel was labelled as foreground in it.
    """
    if collapse_epoch and record["epoch"] == collapse_epoch and record["foreground"] == 0:
        raise CollapsedError(
            f"after {collapse_epoch} epochs the network labels nothing but background",
            "look at curves.png; lower optimizer.lr or optimizer.momentum (nnU-Net takes 0.95 "
            "then), raise foreground or class_weights, and train anew; collapse_epoch: 0 goes on",
        )
