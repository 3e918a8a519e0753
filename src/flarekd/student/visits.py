"""The windows of one volume: which were run, what they add up to, how far things are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import torch

from flarekd.inference.accumulate import Network, Planes, forward
from flarekd.inference.head import Head, classes, greatest

Index = tuple[int, int, int]
"""A window's place (z, y, x) in its grid."""

Place = tuple[slice, slice, slice]
"""The voxels (z, y, x) of a window."""


class Visits:
    """Runs the network on windows of a grid, each at most once.

    Args:
        network: Maps (n, 1, z, y, x) to logits (n, C, z, y, x).
        volume: float32 (z, y, x), at least `patch`.
        patch: Window size.
        batch: Windows a forward pass, at most.
        head: Of a network that has none.
        held: As `Planes` takes it.

    Attributes:
        seen: Windows that were run.
        planes: Their weighted mean.
    """

    def __init__(
        self,
        network: Network,
        volume: torch.Tensor,
        patch: Sequence[int],
        batch: int,
        head: Head | None = None,
        *,
        held: int | None = None,
    ) -> None:
        self.volume = volume
        self.patch = (patch[0], patch[1], patch[2])
        self.grid: list[list[int]] = [[], [], []]
        self.planes = Planes(volume.shape, patch, held=held)
        self.seen: set[Index] = set()
        self._network, self._batch, self._head = network, batch, head
        self._on_window: Callable[[int, int], None] | None = None
        self._total = self._done = 0

    def begin(
        self,
        grid: list[list[int]],
        total: int,
        on_window: Callable[[int, int], None] | None,
    ) -> None:
        """Set the grid (starts along z, y and x), and who is told how many of `total` are done."""
        self.grid, self._total, self._on_window = grid, total, on_window

    def everything(self) -> list[Index]:
        """All windows of the grid, upwards, then row by row."""
        z, y, x = (range(len(starts)) for starts in self.grid)
        return list(product(z, y, x))

    def place(self, index: Index, margin: int = 0) -> Place:
        """The voxels of a window, and `margin` more on each side as far as the volume goes."""
        z, y, x = (
            slice(max(0, starts[i] - margin), starts[i] + size + margin)
            for starts, i, size in zip(self.grid, index, self.patch, strict=True)
        )
        return z, y, x

    def run(self, indices: Iterable[Index]) -> Iterator[tuple[Index, torch.Tensor]]:
        """Run those windows that were not run yet; yields each and its logits (C, z, y, x)."""
        queue = [index for index in indices if index not in self.seen]
        for first in range(0, len(queue), self._batch):
            now = queue[first : first + self._batch]
            self.seen.update(now)
            windows = torch.stack([self.volume[self.place(index)] for index in now])[:, None]
            logits = forward(self._network, windows)
            for index, window in zip(now, logits, strict=True):
                self.planes.add(window, [part.start for part in self.place(index)])
                yield index, window
            self.advance(len(self.seen))

    def labels(self, window: torch.Tensor) -> torch.Tensor:
        """What the network calls each voxel of a window that `run` gave: uint8 (z, y, x)."""
        return greatest(classes(window, self._head))[0]

    def finish(self) -> None:
        """Say that what was not run is skipped."""
        self.advance(self._total)

    def advance(self, done: int) -> None:
        """Say that at least `done` windows are run or skipped."""
        if self._on_window is not None and done > self._done:
            self._done = done
            self._on_window(done, self._total)
