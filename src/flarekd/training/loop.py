"""The training loop: one function a person can read from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flarekd import interrupts
from flarekd.device import autocast_dtype, lay_out
from flarekd.errors import writing
from flarekd.imaging.atomic import write_text
from flarekd.protocol import Training
from flarekd.training import checkpoint
from flarekd.training.batches import Batch, ahead
from flarekd.training.compiled import Compiled
from flarekd.training.epoch import Epoch, check_collapse
from flarekd.training.log import LOG, read_log
from flarekd.training.loss import deep_supervision_loss
from flarekd.training.ranks import ALONE, Ranks
from flarekd.training.schedule import make_optimizer, poly_lr, warmup

LOADER_THREADS = 2

Judge = Callable[[nn.Module, int, torch.device], dict[str, Any]]
"""Facts that an epoch's record gains, of the network in eval mode: `validation.Validation`."""


@dataclass
class Trainer:
    """One network being trained in a run folder.

    Attributes:
        network: On its device.
        settings: The section of the configuration.
        folder: Run folder; gets log.jsonl and the checkpoints.
        seed: Of the run.
        identity: Hash of settings and data; a checkpoint of another identity is not continued.
        device: Where tensors go.
        ranks: This process among those that train together.
        warn: Told what a person should look at.
        ignores: Whether labels may hold `IGNORE`.
    """

    network: nn.Module
    settings: Training
    folder: Path
    seed: int
    identity: str
    device: torch.device
    ranks: Ranks = ALONE
    warn: Callable[[str], None] = lambda _: None
    ignores: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self._lower = autocast_dtype(self.device, settings.precision)
        lay_out(self.network, self.device, self._lower)
        self.optimizer = make_optimizer(self.network, settings.optimizer)
        # bf16 has float32's range and needs no scaling
        self.scaler = torch.amp.GradScaler("cuda", enabled=self._lower is torch.float16)
        self.average: dict[str, Tensor] = {}
        if settings.optimizer.ema:
            self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        weights = settings.class_weights
        self.class_weights = torch.tensor(weights, device=self.device) if weights else None
        self.iteration = 0
        self.facts: dict[str, Any] = {}
        self._epoch: dict[str, Any] | None = None
        wrapped = self.ranks.wrap(self.network, self.device, 0.0 in settings.deep_supervision)
        self._forward = Compiled(wrapped, self.warn) if settings.compile else wrapped
        self._wrapped = wrapped

    @property
    def total(self) -> int:
        """Iterations of the whole run."""
        return self.settings.epochs * self.settings.iterations

    def resume(self) -> None:
        """Continue from the folder's checkpoint: the next iteration is what it would have been."""
        path = checkpoint.latest(self.folder)
        average, facts = checkpoint.restore(path, self.network, self.optimizer)
        self.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        self.iteration = int(facts["iteration"])
        self.facts = facts.get("kept", {})
        self._epoch = facts.get("epoch")
        if facts.get("scaler"):
            self.scaler.load_state_dict(facts["scaler"])
        if self.ranks.is_first:
            records = read_log(self.folder / LOG)
            last = self.iteration - self._is_unjudged()
            kept = [record for record in records if record["iteration"] <= last]
            write_text(self.folder / LOG, "".join(json.dumps(record) + "\n" for record in kept))

    def train(
        self,
        make_batch: Callable[[int], Batch],
        on_iteration: Callable[[int, int, str], None],
        on_epoch: Callable[[dict[str, Any]], None],
        judge: Judge | None = None,
        skipped: Mapping[str, int] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Train from where it stands to the last iteration; interrupted, save and leave.

        Args:
            make_batch: Batch of an index; ``accumulate`` of them make an iteration.
            on_iteration: Told (done, total, note).
            on_epoch: Called with each record of log.jsonl once it is written.
            judge: Validates at the end of each epoch.
            skipped: Cases that cannot be read and how many samples they missed; grows.

        Returns:
            The weights to keep: the averaged ones where the settings ask for them.

        Raises:
            DivergedError: If the loss becomes NaN or infinite.
            CollapsedError: If the network labels nothing but background for too long.
        """
        self.network.train()
        saved = time.monotonic()
        epoch = Epoch(self._epoch)

        def end() -> None:
            on_epoch(self._end(epoch, judge, skipped))

        if self._is_unjudged():
            epoch = self._close(epoch, end)
        with closing(self._batches(make_batch)) as made:
            while self.iteration < self.total:
                self._advance(made, epoch, on_iteration)
                ends = self._is_epochs_end()
                if ends:
                    epoch = self._close(epoch, end)
                if self._is_due(saved):
                    with interrupts.held():
                        self.save(None if ends else epoch)
                    saved = time.monotonic()
        return self.average or self.network.state_dict()

    def _advance(
        self,
        made: Iterator[tuple[list[Batch], float]],
        epoch: Epoch,
        on_iteration: Callable[[int, int, str], None],
    ) -> None:
        """One iteration, whole or not begun."""
        with interrupts.held() as is_asked_to_stop:
            batches, waited_s = next(made)
            epoch.add(*self._step(batches))
            epoch.waited_s += waited_s
            self.iteration += 1
            on_iteration(self.iteration, self.total, epoch.note())
            if is_asked_to_stop():
                self._save_to_stop(epoch)

    def _close(self, epoch: Epoch, end: Callable[[], None]) -> Epoch:
        """End an epoch; if that is interrupted it is ended once more when the run goes on."""
        try:
            end()
        except KeyboardInterrupt:
            self._save_to_stop(epoch)
            raise
        return Epoch()

    def _save_to_stop(self, epoch: Epoch) -> None:
        if self.ranks.size == 1:  # else each has sums of its own, and the last checkpoint stands
            self.save(epoch)
            self.warn(f"a checkpoint of iteration {self.iteration} is written")

    def _is_epochs_end(self) -> bool:
        return self.iteration % self.settings.iterations == 0

    def _is_unjudged(self) -> bool:
        """Whether a checkpoint was written between the last step of an epoch and its record."""
        return bool(self._epoch and self._epoch["losses"]) and self._is_epochs_end()

    def save(self, epoch: Epoch | None = None) -> None:
        """Write the checkpoint, with the sums of an epoch that is not over."""
        facts = {
            "iteration": self.iteration,
            "identity": self.identity,
            "epochs": self.settings.epochs,
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
            "epoch": epoch.facts() if epoch else None,
            "kept": self.facts,
        }
        if self.ranks.is_first:
            checkpoint.keep_previous(self.folder)
            path = self.folder / checkpoint.NAME
            checkpoint.save(path, self.network, self.optimizer, self.average, facts)

    def judged(self) -> nn.Module:
        """The network as it would be kept now, in eval mode."""
        network = deepcopy(self.network)
        if self.average:
            network.load_state_dict(self.average)
        return network.eval()

    def _batches(
        self, make_batch: Callable[[int], Batch]
    ) -> Generator[tuple[list[Batch], float], None, None]:
        """The batches of each iteration to come, and the seconds waited for them."""
        each = self.settings.accumulate
        made = ahead(make_batch, self.iteration * each, self.total * each, LOADER_THREADS)
        for batch, first_s in made:
            others = [next(made) for _ in range(each - 1)]
            yield [batch, *(other for other, _ in others)], first_s + sum(s for _, s in others)

    def _is_due(self, saved: float) -> bool:
        """Whether it is time for a checkpoint."""
        if self.ranks.size > 1 and not self._is_epochs_end():
            return False  # the sums of an epoch that is not over are each rank's own
        due = time.monotonic() - saved >= self.settings.checkpoint_minutes * 60
        return due or self.iteration == self.total

    def _end(self, epoch: Epoch, judge: Judge | None, skipped: Mapping[str, int]) -> dict[str, Any]:
        number = self.iteration // self.settings.iterations
        record = epoch.record(number, self.iteration, self._lr(self.iteration - 1), self.ranks)
        check_collapse(record, self.settings.collapse_epoch)
        if skipped:
            record["skipped"] = dict(skipped)
        if judge is not None:
            record |= judge(self.judged(), number, self.device)
        if self.ranks.is_first:
            path = self.folder / LOG
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        return record

    def _lr(self, iteration: int) -> float:
        settings = self.settings
        lr = poly_lr(settings.optimizer.lr, iteration // settings.iterations, settings.epochs)
        return lr * warmup(iteration, settings.optimizer.warmup)

    def _step(self, batches: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        # dropout is the only randomness here; seeded by the iteration, a resumed run draws the same
        # masks
        torch.manual_seed(self.seed * 1_000_003 + self.iteration + 7919 * self.ranks.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        found = []
        for number, batch in enumerate(batches, 1):
            with self._alone() if number < len(batches) else nullcontext():
                found.append(self._backward(batch, len(batches)))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        losses, dice, foreground = zip(*found, strict=True)
        mean = torch.stack(dice).nanmean(0)  # over the batches that have the class annotated
        return torch.stack(losses).mean(), mean, torch.stack(foreground).sum()

    def _alone(self) -> AbstractContextManager[None]:
        """Gradients are averaged over the ranks with the last batch of a step only."""
        if isinstance(self._wrapped, DistributedDataParallel):
            return self._wrapped.no_sync()
        return nullcontext()

    def _backward(self, batch: Batch, count: int) -> tuple[Tensor, Tensor, Tensor]:
        images, target, *annotated = (t.to(self.device, non_blocking=True) for t in batch)
        with torch.autocast(self.device.type, self._lower, enabled=self._lower is not None):
            outputs = self._forward(images)
        loss, dice = deep_supervision_loss(
            outputs,
            target,
            self.settings.deep_supervision,
            self.class_weights,
            self.ranks.total_with_gradient,
            ignores=self.ignores,
            annotated=annotated[0] if annotated else None,
        )
        with torch.no_grad():
            # the background's logit is beaten somewhere: cheaper than an arg max of all classes
            foreground = (outputs[0][:, 1:].amax(1) > outputs[0][:, 0]).sum()
        del outputs  # the way back needs the memory more
        self.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]  # torch's gap
        return loss.detach(), dice, foreground

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
