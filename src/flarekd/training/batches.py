"""Batches of a training run.

Each is a pure function of seed and iteration, made ahead in threads: its samples are read, and then
normalised and augmented together, on the GPU where there is one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flarekd.errors import InputError
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.protocol import Training
from flarekd.training import augment
from flarekd.training.sampling import Zyx, draw_start, is_forced

Batch = tuple[Tensor, Tensor]
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
    """

    hu: Tensor
    labels: Tensor
    inside: tuple[slice, slice, slice]
    shape: Zyx
    draw: augment.Draw


@dataclass(frozen=True)
class Batches:
    """Makes the batch of any iteration: reads it, which is the processor's work, and augments it.

    Attributes:
        cases: The training store.
        settings: Patch, batch and augmentation.
        statistics: What normalises HU.
        seed: Of the run; a batch depends on it and the iteration alone, so a resumed run sees the
            same ones.
        device: Where batches are normalised, augmented, and found.
    """

    cases: Sequence[StoredCase]
    settings: Training
    statistics: IntensityStatistics
    seed: int
    device: torch.device = CPU

    def __call__(self, iteration: int) -> Batch:
        """The batch of `iteration`, read and augmented."""
        return self.augment(self.read(iteration))

    def read(self, iteration: int) -> list[Region]:
        """Read what the batch of `iteration` is made from; for a GPU, into pinned memory."""
        return [self._read_sample(iteration, index) for index in range(self.settings.batch)]

    def augment(self, raw: Sequence[Region]) -> Batch:
        """Normalise and augment what was read, on the device.

        Args:
            raw: From `read`.

        Returns:
            float32 (n, 1, z, y, x) and int64 (n, z, y, x); without the z axis where the patch has
            one slice.
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
            return images.squeeze(2), target.squeeze(1)
        return images, target

    def _read_sample(self, iteration: int, index: int) -> Region:
        generator = np.random.default_rng([self.seed, iteration, index])
        case = self.cases[int(generator.integers(len(self.cases)))]
        patch, shape = self.settings.patch, self.settings.oversize
        start = draw_start(
            generator,
            case,
            patch,
            shape,
            forced=is_forced(index, self.settings.batch, self.settings.foreground),
            class_weights=self.settings.class_weights,
        )
        draw = augment.sample(generator, self.settings.augmentation)
        if not draw.is_spatial:  # then nothing but the patch in the middle is needed
            z, y, x = (
                first + (outer - inner) // 2
                for first, outer, inner in zip(start, shape, patch, strict=True)
            )
            start, shape = (z, y, x), patch
        try:
            hu, labels, inside = _read(case, start, shape)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"cannot read training case {case.case!r}: {error}",
                "remove its file from the store; the next run makes it again",
            ) from error
        if self.device.type == "cuda":
            hu, labels = hu.pin_memory(), labels.pin_memory()
        return Region(hu, labels, inside, shape, draw)

    def _normalize(self, region: Region) -> Batch:
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
    passes through /dev/shm, and an error in one is raised here.

    Yields:
        What was made, and the seconds that the caller waited for it.
    """
    depth = 2 * threads
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
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
