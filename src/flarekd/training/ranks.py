"""Several processes that train one network, on one machine or many.

``torchrun`` starts them; each makes its own part of every batch, and gradients are averaged over
all of them (DistributedDataParallel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from flarekd.errors import FlarekdError
from flarekd.lock import locked

Shared = TypeVar("Shared")

_GROUPS: list[Any] = []
"""All that were joined, held to the end of the process. A wrapped network that was the last to hold
one would end it with Python's lock in its hands, and wait for a thread that waits for that lock:
now and then a rank that had done its work stayed for ever (seen with torch 2.13, gloo)."""

PATIENCE = timedelta(hours=6)
"""How long one rank waits for another: the first may be making the store of thousands of cases."""


class _Total(torch.autograd.Function):
    """Sum over all ranks; what flows back is summed over them too."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors."""
        summed = tensor.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        """Each rank's tensor is in the sum that every rank goes on with."""
        summed = gradients[0].clone()
        distributed.all_reduce(summed)
        return summed


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; without torchrun it is alone.

    Attributes:
        rank: Number of this process, 0 for the one that speaks and writes.
        size: How many there are.
        device: Where what they exchange must lie: NCCL knows no main memory.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if self.size > 1:
            distributed.barrier()

    def share(self, value: Shared | None) -> Shared:
        """What the first rank holds, given to all.

        Args:
            value: Of the first rank; others pass None.
        """
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, src=0)
        (shared,) = values
        assert shared is not None  # the first rank passes a value
        return shared

    def after_first(self, work: Callable[[], object]) -> None:
        """Go on when the first rank has done something; what it refuses, all refuse.

        Args:
            work: Called by the first rank alone.

        Raises:
            FlarekdError: That `work` raised.
        """
        refusal: object = False
        if self.is_first:
            try:
                work()
            except FlarekdError as error:
                if self.size == 1:
                    raise
                refusal = error
        refusal = self.share(refusal if self.is_first else None)
        if isinstance(refusal, FlarekdError):
            raise refusal

    def gather(self, value: Shared) -> list[Shared]:
        """What every rank holds, in the order of the ranks, given to all."""
        if self.size == 1:
            return [value]
        values: list[Shared | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return [found for found in values if found is not None]

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, without gradient."""
        if self.size == 1:
            return tensor
        summed = tensor.to(self.device, copy=True)
        distributed.all_reduce(summed)
        return summed.to(tensor.device)

    def total_with_gradient(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks through which gradients flow back to every one of them.

        The gradient of each rank is that of the sum of all ranks' losses; averaged over the ranks
        it is the gradient of one rank that holds all samples.
        """
        if self.size > 1:
            summed: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]  # torch's own gap
            return summed
        return tensor

    def wrap(self, network: nn.Module, device: torch.device, has_idle: bool) -> nn.Module:
        """The network as it is called in training: gradients averaged over the ranks.

        Args:
            network: On its device, the same on all ranks.
            device: Of this rank.
            has_idle: Whether some parameters get no gradient (a head of weight 0).
        """
        if self.size == 1:
            return network
        if device.type == "cuda":
            sync = nn.SyncBatchNorm.convert_sync_batchnorm
            network = sync(network)  # type: ignore[no-untyped-call]  # torch's own gap
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, devices, find_unused_parameters=has_idle)


ALONE = Ranks()


def is_spokesman() -> bool:
    """Whether this process says what each finds before they join: one of a machine does."""
    return not distributed.is_torchelastic_launched() or distributed.get_node_local_rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other processes that torchrun started, for the length of a ``with``.

    Args:
        device: The kind of device; ``cuda`` without a number becomes this rank's own GPU.

    Yields:
        This process among them, and its device.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE, device
        return
    if device == torch.device("cuda"):
        device = torch.device("cuda", distributed.get_node_local_rank())
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    _GROUPS.append(distributed.group.WORLD)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device), device
    finally:
        distributed.destroy_process_group()


@contextmanager
def holding(folder: Path, ranks: Ranks, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder (`lock.locked`) for all ranks, which write to it together.

    Args:
        folder: Where files are going to be written.
        ranks: The first takes the lock; where it is refused, all are.
        warn: As `lock.locked` takes it.

    Raises:
        UsageError: If a process that is none of them holds it.
        InputError: If it is no folder.
    """
    with ExitStack() as stack:
        ranks.after_first(lambda: stack.enter_context(locked(folder, warn)))
        yield
