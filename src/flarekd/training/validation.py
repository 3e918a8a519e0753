"""Validation while training: pseudo-DSC of patches each epoch, DSC of whole volumes at times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.labels import IGNORE
from flarekd.protocol import FOLDS, Training
from flarekd.training.batches import Batch
from flarekd.training.ranks import Ranks

Segment = Callable[[nn.Module, Tensor], NDArray[np.uint8]]
"""Labels (z, y, x) of a normalised volume float32 (z, y, x): the sliding windows of a network."""

BEST_MEMORY = 0.9
"""How much of the former mean the running pseudo-DSC keeps, as in nnU-Net: one lucky epoch is not
the best."""


def split(names: Sequence[str], fold: int | str) -> tuple[list[int], list[int]]:
    """Which cases train and which are held out.

    Args:
        names: Case ids, in any order; a case's fold depends on its rank among all names.
        fold: 0 to 4, or ``all``.

    Returns:
        Indices into `names` of training and of held-out cases. With ``all`` both are every case;
        where a fold would be empty or hold everything, nothing is held out.

    >>> split(["c", "a", "b", "d", "e", "f"], 0)
    ([0, 2, 3, 4], [1, 5])
    >>> split(["c", "a"], "all")
    ([0, 1], [0, 1])
    """
    everyone = list(range(len(names)))
    if fold == "all":
        return everyone, everyone
    order = sorted(everyone, key=lambda index: names[index])
    held = {index for place, index in enumerate(order) if place % FOLDS == fold}
    return [i for i in everyone if i not in held], [i for i in everyone if i in held]


def still(settings: Training) -> Training:
    """The settings of validation batches: nothing is turned, scaled or made noisy."""
    probabilities = {
        name: 0.0
        for name, value in settings.augmentation.model_dump().items()
        if isinstance(value, float)
    }
    augmentation = settings.augmentation.model_copy(update=probabilities)
    return settings.model_copy(update={"augmentation": augmentation, "oversize": settings.patch})


@dataclass(frozen=True)
class Validation:
    """What judges a network in training.

    Attributes:
        make_batch: Validation batch of an index, without augmentation.
        held_out: Cases for whole volumes.
        statistics: What normalises them.
        segment: Runs a network over a volume.
        settings: How much and how often.
        classes: Outputs of the network, background included.
        ranks: Who shares the work.
    """

    make_batch: Callable[[int], Batch]
    held_out: Sequence[StoredCase]
    statistics: IntensityStatistics
    segment: Segment
    settings: Training
    classes: int
    ranks: Ranks

    @torch.inference_mode()
    def __call__(self, network: nn.Module, epoch: int, device: torch.device) -> dict[str, Any]:
        """What an epoch's record gains: ``validation_dsc`` and, now and then, ``volumes_dsc``.

        Args:
            network: In eval mode.
            epoch: Its number, from 1.
            device: Where it is.
        """
        facts: dict[str, Any] = {}
        count, every = self.settings.validation, self.settings.volumes_every
        if count:
            first = epoch * count
            mine = range(first + self.ranks.rank, first + count, self.ranks.size)
            counts = torch.zeros(3, self.classes, dtype=torch.float64)
            for index in mine:
                counts += _count(network, self.make_batch(index), device)
            facts["validation_dsc"] = _pseudo_dsc(self.ranks.total(counts))
        if every and (epoch % every == 0 or epoch == self.settings.epochs):
            facts["volumes_dsc"] = self._volumes(network, device)
        return facts

    def _volumes(self, network: nn.Module, device: torch.device) -> list[float | None]:
        """Mean DSC, a class, of the held-out volumes that hold the class."""
        sums = torch.zeros(2, self.classes, dtype=torch.float64)
        for case in self.held_out[self.ranks.rank :: self.ranks.size]:
            z, y, x = (slice(0, size) for size in case.shape_zyx)
            hu, truth = case.read((z, y, x))
            volume = torch.from_numpy(self.statistics.normalize(hu)).to(device)
            found = np.where(truth == IGNORE, IGNORE, self.segment(network, volume))
            for label in case.classes:
                predicted, real = found == label, truth == label
                overlap = np.count_nonzero(predicted & real)
                sums[0, label] += 2 * overlap / int(predicted.sum() + real.sum())
                sums[1, label] += 1
        total, cases = self.ranks.total(sums)[:, 1:].tolist()
        return [round(t / c, 4) if c else None for t, c in zip(total, cases, strict=True)]


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def is_best(facts: dict[str, Any], value: float) -> bool:
    """Whether the running mean of an epoch's mean pseudo-DSC is higher than ever.

    Args:
        facts: Remembers the running mean and the best one; changed.
        value: Of this epoch.
    """
    facts["running"] = BEST_MEMORY * facts.get("running", value) + (1 - BEST_MEMORY) * value
    if facts["running"] <= facts.get("best", -1.0):
        return False
    facts["best"] = facts["running"]
    return True


def _count(network: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Voxels of a batch, float64 (3, classes): rightly predicted, predicted, real."""
    images, target, *annotated = (tensor.to(device) for tensor in batch)
    logits: Tensor = network(images)
    # max, not argmax: several times faster across the class axis
    found = logits.max(1).indices
    if annotated:  # of what nobody drew in a sample nobody can say whether it is right
        vouched = annotated[0].gather(1, found.flatten(1)).view_as(found)
        found = found.masked_fill(~vouched, 0)
    known = target != IGNORE
    found, target = found[known], target[known]
    classes = logits.shape[1]
    overlap = torch.bincount(target[found == target], minlength=classes)
    predicted = torch.bincount(found, minlength=classes)
    real = torch.bincount(target, minlength=classes)
    return torch.stack((overlap, predicted, real)).double().cpu()


def _pseudo_dsc(counts: Tensor) -> list[float | None]:
    """DSC of each foreground class over all voxels; None where nobody saw the class."""
    overlap, predicted, real = counts[:, 1:].tolist()
    return [
        round(2 * o / (p + r), 4) if p + r else None
        for o, p, r in zip(overlap, predicted, real, strict=True)
    ]
