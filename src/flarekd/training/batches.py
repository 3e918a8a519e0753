"""Batches of a training run.

Each is a pure function of seed and iteration, made ahead in threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flarekd.errors import InputError
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.protocol import Training
from flarekd.training import augment
from flarekd.training.ranks import ALONE, Ranks
from flarekd.training.sampling import draw_start, is_forced

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
    """

    cases: Sequence[StoredCase]
    settings: Training
    statistics: IntensityStatistics
    seed: int
    ranks: Ranks = ALONE

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

    def _sample(self, iteration: int, index: int) -> Batch:
        generator = np.random.default_rng([self.seed, iteration, index])
        case = self.cases[int(generator.integers(len(self.cases)))]
        whole = self.ranks.size * self.settings.batch
        forced = is_forced(index, whole, self.settings.foreground)
        start = draw_start(
            generator,
            case,
            self.settings.patch,
            self.settings.oversize,
            forced=forced,
            class_weights=self.settings.class_weights,
        )
        draw = augment.sample(generator, self.settings.augmentation)
        oversize = self.settings.oversize if draw.is_spatial else self.settings.patch
        if not draw.is_spatial:
            z, y, x = (
                first + (outer - inner) // 2
                for first, outer, inner in zip(
                    start, self.settings.oversize, self.settings.patch, strict=True
                )
            )
            start = (z, y, x)
        try:
            image, labels = self._read(case, start, oversize)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"cannot read training case {case.case!r}: {error}",
                "remove its file from the store; the next run makes it again",
            ) from error
        return augment.apply(image, labels, draw, self.settings.patch)

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
