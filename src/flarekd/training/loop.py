"""The training loop: one function a person can read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flarekd.errors import InputError
from flarekd.imaging.atomic import write_text
from flarekd.protocol import Optimizer, Training
from flarekd.training import checkpoint
from flarekd.training.batches import Batch, ahead
from flarekd.training.loss import deep_supervision_loss
from flarekd.training.schedule import poly_lr, warmup

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
LOADER_THREADS = 2


class DivergedError(InputError):
    """The loss is not a number any more."""


def make_optimizer(network: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (Table 4), or AdamW."""
    if settings.name == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
    return torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )


@dataclass
class Epoch:
    """Sums over one epoch, for its line in log.jsonl."""

    began: float = field(default_factory=time.monotonic)
    losses: list[float] = field(default_factory=list)
    dice: list[Tensor] = field(default_factory=list)
    waited_s: float = 0.0

    def record(self, number: int, iteration: int, lr: float) -> dict[str, Any]:
        """The epoch as one JSON-like record; ``dsc`` is soft, a class, over its batches."""
        dice = torch.stack(self.dice).mean(0)
        elapsed_s = time.monotonic() - self.began
        return {
            "epoch": number,
            "iteration": iteration,
            "lr": lr,
            "loss": sum(self.losses) / len(self.losses),
            "dsc": [round(float(value), 4) for value in dice],
            "seconds": round(elapsed_s, 2),
            "iterations_per_s": round(len(self.losses) / elapsed_s, 3),
            "data_wait_share": round(self.waited_s / elapsed_s, 4),
        }


@dataclass
class Trainer:
    """One network being trained in a run folder.

    Attributes:
        network: On its device.
        settings: The section of the configuration.
        folder: Run folder; gets log.jsonl and the checkpoint.
        seed: Of the run.
        identity: Hash of settings and data; a checkpoint of another identity is not continued.
        device: Where tensors go.
    """

    network: nn.Module
    settings: Training
    folder: Path
    seed: int
    identity: str
    device: torch.device

    def __post_init__(self) -> None:
        on_cuda = self.device.type == "cuda"
        self.optimizer = make_optimizer(self.network, self.settings.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=on_cuda)
        self.average: dict[str, Tensor] = {}
        if self.settings.optimizer.ema:
            self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        weights = self.settings.class_weights
        self.class_weights = torch.tensor(weights, device=self.device) if weights else None
        self.iteration = 0

    @property
    def total(self) -> int:
        """Iterations of the whole run."""
        return self.settings.epochs * self.settings.iterations

    def resume(self) -> None:
        """Continue from the folder's checkpoint: the next iteration is what it would have been."""
        average, facts = checkpoint.restore(self.folder / CHECKPOINT, self.network, self.optimizer)
        self.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        self.iteration = int(facts["iteration"])
        if facts.get("scaler"):
            self.scaler.load_state_dict(facts["scaler"])
        records = read_log(self.folder / LOG)
        kept = [record for record in records if record["iteration"] <= self.iteration]
        write_text(self.folder / LOG, "".join(json.dumps(record) + "\n" for record in kept))

    def train(
        self,
        make_batch: Callable[[int], Batch],
        on_iteration: Callable[[int, int, str], None],
        on_epoch: Callable[[], None],
    ) -> dict[str, Tensor]:
        """Train from where it stands to the last iteration.

        Args:
            make_batch: Batch of an iteration.
            on_iteration: Told (done, total, note).
            on_epoch: Called after each line of log.jsonl.

        Returns:
            The weights to keep: the averaged ones where the settings ask for them.

        Raises:
            DivergedError: If the loss becomes NaN or infinite.
        """
        self.network.train()
        saved = time.monotonic()
        epoch = Epoch()
        for (images, target), waited_s in ahead(
            make_batch, self.iteration, self.total, LOADER_THREADS
        ):
            loss, dice = self._step(images.to(self.device), target.to(self.device))
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss} at iteration {self.iteration}",
                    "lower optimizer.lr or raise optimizer.warmup",
                )
            epoch.losses.append(loss)
            epoch.dice.append(dice)
            epoch.waited_s += waited_s
            self.iteration += 1
            on_iteration(self.iteration, self.total, f"loss {loss:.3f}")
            if self.iteration % self.settings.iterations == 0:
                number = self.iteration // self.settings.iterations
                self._log(epoch.record(number, self.iteration, self._lr(self.iteration - 1)))
                epoch = Epoch()
                minutes = (time.monotonic() - saved) / 60
                if minutes >= self.settings.checkpoint_minutes or self.iteration == self.total:
                    self.save()
                    saved = time.monotonic()
                on_epoch()
        return self.average or self.network.state_dict()

    def save(self) -> None:
        """Write the checkpoint."""
        facts = {
            "iteration": self.iteration,
            "identity": self.identity,
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
        }
        path = self.folder / CHECKPOINT
        checkpoint.save(path, self.network, self.optimizer, self.average, facts)

    def _lr(self, iteration: int) -> float:
        settings = self.settings
        lr = poly_lr(settings.optimizer.lr, iteration // settings.iterations, settings.epochs)
        return lr * warmup(iteration, settings.optimizer.warmup)

    def _step(self, images: Tensor, target: Tensor) -> tuple[float, Tensor]:
        # dropout is the only randomness here; seeded by the iteration, a resumed run draws the same
        # masks
        torch.manual_seed(self.seed * 1_000_003 + self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.float16, enabled=self.scaler.is_enabled()):
            outputs = self.network(images)
        loss, dice = deep_supervision_loss(
            outputs, target, self.settings.deep_supervision, self.class_weights
        )
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        return float(loss.detach()), dice.cpu()

    def _update_average(self) -> None:
        if not self.average:
            return
        # a short memory at first, or the random start would linger
        decay = min(self.settings.optimizer.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _log(self, record: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a line torn by a kill is left out."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records
