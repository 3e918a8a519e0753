"""Batches of a training run.

Each is a pure function of seed and iteration, made ahead in threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from flarekd.errors import InputError
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.protocol import Training
from flarekd.training import augment
from flarekd.training.ranks import ALONE, Ranks
from flarekd.training.sampling import Pick, Strata, draw_pick, draw_place, is_forced, stratify

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Batches:
    """Makes the batch of any iteration.

    Attributes:
        cases: The training store.
        settings: Patch, batch and augmentation.
        statistics: What normalises HU.
        seed: Of the run; a batch depends on it and the iteration alone, so a resumed run sees the
            same ones.
        ranks: This process among those that train together; each makes its part of one large batch.
        skipped: Case to how many samples were drawn anew because it could not be read.
    """

    cases: Sequence[StoredCase]
    settings: Training
    statistics: IntensityStatistics
    seed: int
    ranks: Ranks = ALONE
    skipped: dict[str, int] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, iteration: int) -> Batch:
        """The batch of `iteration`.

        Returns:
            float32 (n, 1, z, y, x) and int64 (n, z, y, x); without the z axis where the patch has
            one slice.
        """
        first = self.ranks.rank * self.settings.batch
        samples = [self._sample(iteration, first + i) for i in range(self.settings.batch)]
        images = torch.stack([image for image, _ in samples]).unsqueeze(1)
        labels = torch.stack([labels for _, labels in samples]).long()
        if self.settings.patch[0] == 1:
            return images.squeeze(2), labels.squeeze(1)
        return images, labels

    @cached_property
    def _strata(self) -> Strata:
        return stratify(self.cases) if self.settings.lesions else ()

    def _sample(self, iteration: int, index: int) -> Batch:
        generator = np.random.default_rng([self.seed, iteration, index])
        unreadable: set[int] = set()
        while True:
            pick = draw_pick(
                generator,
                len(self.cases),
                self._strata,
                self.settings.lesions,
                forced=self._is_forced(index),
                without=unreadable,
            )
            try:
                image, labels, draw = self._crop(generator, pick, index)
            except (InputError, OSError, ValueError, RuntimeError) as error:
                unreadable.add(pick.case)
                self._pass_over(self.cases[pick.case].case, error, len(unreadable))
                continue
            return augment.apply(image, labels, draw, self.settings.patch)

    def _is_forced(self, index: int) -> bool:
        whole = self.ranks.size * self.settings.batch
        return is_forced(index, whole, self.settings.foreground)

    def _crop(
        self, generator: np.random.Generator, pick: Pick, index: int
    ) -> tuple[Tensor, Tensor, augment.Draw]:
        """Image, labels and what is to be done to them."""
        case, settings = self.cases[pick.case], self.settings
        start = draw_place(generator, case, pick, settings, forced=self._is_forced(index))
        draw = augment.sample(generator, settings.augmentation)
        size = settings.oversize if draw.is_spatial else settings.patch
        if not draw.is_spatial:
            z, y, x = (
                first + (outer - inner) // 2
                for first, outer, inner in zip(
                    start, settings.oversize, settings.patch, strict=True
                )
            )
            start = (z, y, x)
        return *self._read(case, start, size), draw

    def _pass_over(self, case: str, error: Exception, unreadable: int) -> None:
        """Count a case that cannot be read, or stop where that is not wanted or none is left."""
        if self.settings.on_unreadable == "stop" or unreadable == len(self.cases):
            raise InputError(
                f"cannot read training case {case!r}: {error}",
                "remove its file from the store; the next run makes it again",
            ) from error
        with self._lock:
            self.skipped[case] = self.skipped.get(case, 0) + 1

    def _read(
        self, case: StoredCase, start: tuple[int, int, int], size: tuple[int, int, int]
    ) -> Batch:
        inside, target = [], []
        for first, length, limit in zip(start, size, case.shape_zyx, strict=True):
            low = max(first, 0)
            high = max(min(first + length, limit), low)
            inside.append(slice(low, high))
            target.append(slice(low - first, high - first))
        image = np.zeros(size, np.float32)  # 0 is the mean after normalisation
        labels = np.zeros(size, np.uint8)
        if all(part.start < part.stop for part in inside):
            hu, ids = case.read((inside[0], inside[1], inside[2]))
            image[tuple(target)] = self.statistics.normalize(hu)
            labels[tuple(target)] = ids
        return torch.from_numpy(image), torch.from_numpy(labels)


def ahead(
    make: Callable[[int], Batch], start: int, stop: int, threads: int
) -> Iterator[tuple[Batch, float]]:
    """Yield the batches of iterations `start` to `stop`, made ahead in threads.

    Threads, not processes: decompression and tensor work release the interpreter lock, nothing
    passes through /dev/shm, and an error in one is raised here.

    Yields:
        A batch, and the seconds that the caller waited for it.
    """
    depth = 2 * threads
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
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
