"""Run a network on windows and average what overlaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch

from flarekd.inference.windows import gaussian

Network = Callable[[torch.Tensor], torch.Tensor]
"""Maps (n, 1, …) to (n, C, …) at the same resolution: a module in eval mode, or another runtime."""


def check_network(network: Network) -> None:
    """Refuse a module in training mode, which drops out and returns deep-supervision outputs.

    Raises:
        ValueError: If `network` is a module in training mode.
    """
    if getattr(network, "training", False):
        raise ValueError("the network is in training mode; call its eval() before inference")


def forward(network: Network, windows: torch.Tensor) -> torch.Tensor:
    """Run the network on a batch of windows: in mixed precision (fp16) on CUDA, else in float32.

    Without hardware for it, half precision is many times slower on CPUs.

    Args:
        network: See `Network`.
        windows: float32 (n, 1, …) on the network's device.

    Returns:
        Logits, float32 (n, C, …) on the same device.

    Raises:
        ValueError: If the output is not at the windows' resolution.
    """
    device = windows.device.type
    with torch.autocast(device, dtype=torch.float16, enabled=device == "cuda"):
        logits = network(windows)
    if logits.shape[0] != windows.shape[0] or logits.shape[2:] != windows.shape[2:]:
        raise ValueError(f"network maps {tuple(windows.shape)} to {tuple(logits.shape)}")
    return logits.float()


class Accumulator:
    """Gaussian-weighted mean of overlapping windows of one slice, float32 in main memory.

    Holds C + 1 floats a voxel: one weight map serves all classes. The sums are made with the first
    window, because only then C is known.

    Args:
        shape: Size of the whole, the same number of axes as `patch`.
        patch: Window size, at most `shape` on every axis.
    """

    def __init__(self, shape: Sequence[int], patch: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self.patch = tuple(patch)
        self._weight = gaussian(patch)
        self._weights: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None

    def add(self, window: torch.Tensor, start: Sequence[int]) -> None:
        """Add a window.

        Args:
            window: float32 (C, *patch), on any device.
            start: Its first voxel in the whole.
        """
        if self._sums is None or self._weights is None:
            self._sums = torch.zeros((window.shape[0], *self._shape))
            self._weights = torch.zeros(self._shape)
        place = tuple(slice(a, a + p) for a, p in zip(start, self.patch, strict=True))
        self._sums[(slice(None), *place)].addcmul_(window.cpu(), self._weight)
        self._weights[place] += self._weight

    def mean(self, background: float) -> torch.Tensor:
        """Finish: the mean of all windows. The accumulator is spent afterwards.

        Args:
            background: Value of class 0 where no window was added; the other classes are 0 there.

        Returns:
            float32 (C, *shape), never NaN; C is 1 (background alone) where no window was added at
            all.
        """
        if self._sums is None or self._weights is None:
            return torch.full((1, *self._shape), background)
        unseen = self._weights == 0
        self._sums /= self._weights.masked_fill_(unseen, 1.0)
        self._sums[0].masked_fill_(unseen, background)
        return self._sums


class Planes:
    """Gaussian-weighted mean of overlapping 3D windows, float32, plane by plane.

    Holds C + 1 floats a voxel of the planes between the first window's touch and `take`: on the GPU
    that the windows come from if it has room for them, else in main memory.

    Args:
        shape: Size of the whole (z, y, x), on no axis below that of a window.
        patch: Window size (z, y, x).
        held: Planes that are held at one time, at most; None for all.
    """

    def __init__(
        self, shape: Sequence[int], patch: Sequence[int], *, held: int | None = None
    ) -> None:
        self._shape = tuple(shape)
        self._held = held or self._shape[0]
        self._weight = gaussian(patch)
        self._classes = 1
        self._home: torch.device | None = None
        self._open: dict[int, torch.Tensor] = {}

    def add(self, window: torch.Tensor, start: Sequence[int]) -> None:
        """Add a window.

        Args:
            window: float32 (C, *patch), on any device.
            start: Its first voxel (z, y, x).
        """
        if self._home is None:
            self._classes = len(window)
            room = 4 * (self._classes + 1) * self._held * prod(self._shape[1:])
            self._home = _roomy(window.device, room)
            self._weight = self._weight.to(self._home)
        window = window.to(self._home)
        rows, columns = (
            slice(a, a + size) for a, size in zip(start[1:], window.shape[2:], strict=True)
        )
        for offset, weight in enumerate(self._weight):
            z = start[0] + offset
            if z not in self._open:
                self._open[z] = self._nothing()
            here = self._open[z][:, rows, columns]
            here[:-1].addcmul_(window[:, offset], weight)
            here[-1] += weight

    def take(self, z: int, background: float) -> torch.Tensor:
        """The mean of all windows on a plane, which is forgotten.

        Args:
            z: Which.
            background: Value of class 0 where no window was added; the other classes are 0 there.

        Returns:
            float32 (C, y, x), never NaN; C is 1 (background alone) where no window was added at
            all.
        """
        sums = self._open.pop(z, None)
        if sums is None:
            sums = self._nothing()
        mean, weights = sums[:-1], sums[-1]
        unseen = weights == 0
        mean /= weights.masked_fill_(unseen, 1.0)
        mean[0].masked_fill_(unseen, background)
        return mean

    def _nothing(self) -> torch.Tensor:
        """The sums of a plane that no window has touched."""
        return torch.zeros((self._classes + 1, *self._shape[1:]), device=self._home)


LABELLING = 256 << 20
"""Bytes that are left free on a GPU for making labels of the planes there."""


def _roomy(device: torch.device, size: int) -> torch.device:
    """`device` if it is a GPU that has twice `size` bytes and `LABELLING` free, else the CPU."""
    if device.type == "cuda" and 2 * size + LABELLING <= torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")
