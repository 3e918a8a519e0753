"""Batches of a training run.

Each is a pure function of seed and iteration, made ahead in threads: its samples are read, and then
normalised and augmented together, on the GPU where there is one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flarekd.errors import InputError, reason
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.protocol import Training
from flarekd.training import augment
from flarekd.training.ranks import ALONE, Ranks
from flarekd.training.sampling import (
    Holders,
    Pick,
    Strata,
    Zyx,
    draw_holder,
    draw_pick,
    draw_place,
    holders,
    is_forced,
    stratify,
)

Batch = tuple[Tensor, ...]
"""Images and target; where cases are partly annotated, also which classes each sample vouches for,
bool (n, classes)."""

Made = TypeVar("Made")

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Region:
    """What was read for one sample, as it is stored.

    Attributes:
        hu: int16 (z, y, x), what of the region lies inside the scan.
        labels: uint8, of the same shape.
        inside: Where that lies in the region.
        shape: Of the region (z, y, x).
        draw: How it is going to be augmented.
        annotated: Which classes the labels vouch for, bool (classes,); None for all.
    """

    hu: Tensor
    labels: Tensor
    inside: tuple[slice, slice, slice]
    shape: Zyx
    draw: augment.Draw
    annotated: Tensor | None = None


@dataclass(frozen=True)
class Batches:
    """Makes the batch of any iteration: reads it, which is the processor's work, and augments it.

    Attributes:
        cases: The training store.
        settings: Patch, batch and augmentation.
        statistics: What normalises HU.
        seed: Of the run; a batch depends on it and the iteration alone, so a resumed run sees the
            same ones.
        ranks: This process among those that train together; each makes its part of one large batch.
        device: Where batches are normalised, augmented, and found.
        annotated: Case to the classes it vouches for (`marginal.masks`): of all cases, or of none
            where labels are complete.
        skipped: Case to how many samples were drawn anew because it could not be read.
    """

    cases: Sequence[StoredCase]
    settings: Training
    statistics: IntensityStatistics
    seed: int
    ranks: Ranks = ALONE
    device: torch.device = CPU
    annotated: Mapping[str, Tensor] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, iteration: int) -> Batch:
        """The batch of `iteration`, read and augmented."""
        return self.augment(self.read(iteration))

    def read(self, iteration: int) -> list[Region]:
        """Read what the batch of `iteration` is made from; for a GPU, into pinned memory."""
        first = self.ranks.rank * self.settings.batch
        return [self._read_sample(iteration, first + i) for i in range(self.settings.batch)]

    def augment(self, raw: Sequence[Region]) -> Batch:
        """Normalise and augment what was read, on the device.

        Args:
            raw: From `read`.

        Returns:
            float32 (n, 1, z, y, x) and int64 (n, z, y, x), without the z axis where the patch has
            one slice; what the samples vouch for, where that is not all.
        """
        draws = [region.draw for region in raw]
        regions = [self._normalize(region) for region in raw]
        images, labels = augment.apply(
            [image for image, _ in regions],
            [ids for _, ids in regions],
            draws,
            self.settings.patch,
        )
        images, target = images.unsqueeze(1), labels.long()
        if self.settings.patch[0] == 1:
            images, target = images.squeeze(2), target.squeeze(1)
        known = [region.annotated for region in raw if region.annotated is not None]
        return (images, target, torch.stack(known).to(self.device)) if known else (images, target)

    @cached_property
    def _strata(self) -> Strata:
        return stratify(self.cases) if self.settings.lesions else ()

    @cached_property
    def _holders(self) -> Holders:
        """Of classes that not all cases have annotated; else how cases are drawn is the paper's."""
        return holders(self.cases) if self.annotated else {}

    def _read_sample(self, iteration: int, index: int) -> Region:
        generator = np.random.default_rng([self.seed, iteration, index])
        unreadable: set[int] = set()
        while True:
            pick = self._pick(generator, index, unreadable)
            try:
                return self._crop(generator, pick, index)
            except (InputError, OSError, ValueError, RuntimeError) as error:
                unreadable.add(pick.case)
                self._pass_over(self.cases[pick.case].case, error, len(unreadable))

    def _pick(self, generator: np.random.Generator, index: int, without: Collection[int]) -> Pick:
        settings, forced = self.settings, self._is_forced(index)
        held = None
        if forced and self._holders:
            held = draw_holder(generator, self._holders, settings.class_weights, without)
        return held or draw_pick(
            generator,
            len(self.cases),
            self._strata,
            settings.lesions,
            forced=forced,
            without=without,
        )

    def _is_forced(self, index: int) -> bool:
        whole = self.ranks.size * self.settings.batch
        return is_forced(index, whole, self.settings.foreground)

    def _crop(self, generator: np.random.Generator, pick: Pick, index: int) -> Region:
        case, settings = self.cases[pick.case], self.settings
        start = draw_place(generator, case, pick, settings, forced=self._is_forced(index))
        draw = augment.sample(generator, settings.augmentation)
        shape = settings.oversize
        if not draw.is_spatial:  # then nothing but the patch in the middle is needed
            z, y, x = (
                first + (outer - inner) // 2
                for first, outer, inner in zip(start, shape, settings.patch, strict=True)
            )
            start, shape = (z, y, x), settings.patch
        hu, labels, inside = _read(case, start, shape)
        if self.device.type == "cuda":
            hu, labels = hu.pin_memory(), labels.pin_memory()
        return Region(hu, labels, inside, shape, draw, self.annotated.get(case.case))

    def _pass_over(self, case: str, error: Exception, unreadable: int) -> None:
        """Count a case that cannot be read, or stop where that is not wanted or none is left."""
        if self.settings.on_unreadable == "stop" or unreadable == len(self.cases):
            raise InputError(
                f"cannot read training case {case!r}: {reason(error)}",
                "remove its file from the store; the next run makes it again",
            ) from error
        with self._lock:
            self.skipped[case] = self.skipped.get(case, 0) + 1

    def _normalize(self, region: Region) -> tuple[Tensor, Tensor]:
        """The whole region, float32 and uint8 (z, y, x), on the device; outside the scan it is 0.

        0 is the mean after normalisation, and the background.
        """
        image = torch.zeros(region.shape, device=self.device)
        labels = torch.zeros(region.shape, dtype=torch.uint8, device=self.device)
        labels[region.inside].copy_(region.labels, non_blocking=True)
        hu = image[region.inside].copy_(region.hu.to(self.device, non_blocking=True))
        hu.clamp_(self.statistics.lower, self.statistics.upper)
        hu.sub_(self.statistics.mean).div_(self.statistics.sd)
        return image, labels


def _read(
    case: StoredCase, start: Zyx, shape: Zyx
) -> tuple[Tensor, Tensor, tuple[slice, slice, slice]]:
    """Image and labels of what lies inside the case, and where in the region that is."""
    source, target = [], []
    for first, length, limit in zip(start, shape, case.shape_zyx, strict=True):
        low = max(first, 0)
        high = max(min(first + length, limit), low)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    if any(part.start == part.stop for part in source):
        nothing = torch.empty(0, 0, 0)
        empty = slice(0, 0)
        return nothing.short(), nothing.byte(), (empty, empty, empty)
    hu, labels = case.read((source[0], source[1], source[2]))
    inside = (target[0], target[1], target[2])
    return torch.from_numpy(hu), torch.from_numpy(labels), inside


def ahead(
    make: Callable[[int], Made], start: int, stop: int, threads: int
) -> Iterator[tuple[Made, float]]:
    """Yield what `make` makes of iterations `start` to `stop`, ahead in threads.

    Threads, not processes: decompression and tensor work release the interpreter lock, nothing
    passes through /dev/shm, and an error in one is raised here. Each works on one core: with
    more, its threads and those of the training step would wait for each other by spinning, and a
    step on two cores took 1.5 times as long.

    Yields:
        What was made, and the seconds that the caller waited for it.
    """
    depth = 2 * threads
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(threads, "batches", torch.set_num_threads, (1,)) as pool:
        waiting: deque[Future[Made]] = deque()
        following = start
        try:
            for _ in range(start, stop):
                while following < stop and len(waiting) < depth:
                    waiting.append(pool.submit(make, following))
                    following += 1
                began = time.monotonic()
                batch = waiting.popleft().result()
                yield batch, time.monotonic() - began
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(cores)  # what a thread sets for itself, later ones start with
