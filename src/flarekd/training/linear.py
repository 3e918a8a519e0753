"""Linear operators along one axis: Gaussian smoothing, and the way through a coarser grid.

Each is a matrix with its rule at the border inside, zero but for a band about its diagonal.
Multiplied block by block it beats convolution on a CPU by far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flarekd.training.warp import cubic_weights

BLOCK = 32
"""Columns that a block of rows moves on by, about: what fits the caches."""


@dataclass(frozen=True)
class Banded:
    """A matrix whose rows are zero further than `reach` columns from ``first + step · row``.

    Attributes:
        matrix: float32 (new, old), from an axis' old values to its new ones.
        reach: Columns.
        first: Column about which the first row lies.
        step: Columns from row to row.
    """

    matrix: Tensor
    reach: int
    first: float = 0.0
    step: float = 1.0

    def along(self, stack: Tensor, axis: int, out: Tensor | None = None) -> Tensor:
        """Multiply the values along an axis.

        Args:
            stack: float32, contiguous, any number of axes.
            axis: Which, from the front.
            out: What to write to, contiguous, other memory than `stack`; a new array where left
                out.

        Returns:
            float32, as long as the matrix has rows along that axis.
        """
        new, old = self.matrix.shape
        before, after = stack.shape[:axis], stack.shape[axis + 1 :]
        if out is None:
            out = stack.new_empty((*before, new, *after))
        rows = stack.view(math.prod(before), old, math.prod(after))
        result = out.view(len(rows), new, rows.shape[2])
        size = int(min(max(BLOCK / self.step, BLOCK / 2), 2 * BLOCK))
        for start in range(0, new, size):
            stop = min(start + size, new)
            middles = [self.first + self.step * row for row in (start, stop - 1)]
            low = max(0, math.floor(middles[0]) - self.reach)
            high = min(old, math.ceil(middles[1]) + self.reach + 1)
            block = self.matrix[start:stop, low:high]
            if after:
                blocks = block.expand(len(rows), *block.shape)
                torch.bmm(blocks, rows[:, low:high], out=result[:, start:stop])
            else:
                torch.mm(rows[:, low:high, 0], block.T, out=result[:, start:stop, 0])
        return out


def gaussian(length: int, sigma: float, device: torch.device) -> Banded:
    """Gaussian smoothing as scipy's: truncated at 4 σ, mirrored at the border.

    Args:
        length: Of the axis.
        sigma: Voxels.
        device: Where the matrix goes.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    columns = (torch.arange(length, device=device)[:, None] + offsets) % (2 * length)
    columns = torch.where(columns < length, columns, 2 * length - 1 - columns)
    return Banded(_scatter(columns, (kernel / kernel.sum()).expand(columns.shape), length), radius)


def coarse(length: int, zoom: float, device: torch.device) -> Banded:
    """Down to round(length · zoom) voxels by nearest neighbour, and up again by cubic convolution.

    Both between half-pixel centres; the border voxel is repeated.

    Args:
        length: Of the axis.
        zoom: Above 0, up to 1.
        device: Where the matrix goes.
    """
    size = max(1, round(length * zoom))
    place = (torch.arange(length, device=device) + 0.5) * (size / length) - 0.5
    below = place.floor()
    taps = below.long()[:, None] + torch.arange(-1, 3, device=device)
    # the voxel that the centre of a coarse one lies in
    picked = ((2 * taps.clamp(0, size - 1) + 1) * length) // (2 * size)
    matrix = _scatter(picked, cubic_weights(place - below), length)
    return Banded(matrix, 3 * length // size + 1)


def wide_gaussian(length: int, sigma: float, device: torch.device) -> tuple[Banded, Banded]:
    """Gaussian smoothing of an axis with zeros outside, in two steps by way of fewer points.

    Smoothing by σ/√2 twice is smoothing by σ, and what has been smoothed once is known from points
    0.6 σ apart: a fraction of the work, to some 10⁻⁴.

    Args:
        length: Of the axis.
        sigma: Voxels.
        device: Where the matrices go.

    Returns:
        The way to the points, which lie beyond both ends too, and the way back.
    """
    part, step = sigma / math.sqrt(2), max(1, int(0.6 * sigma))
    radius = int(4 * part + 0.5)
    beyond = radius // step * step
    points = torch.arange(-beyond, length + beyond, step, device=device)
    distances = torch.arange(radius + 2, device=device)
    kernel = torch.exp(-0.5 * (distances / part) ** 2) / (part * math.sqrt(2 * math.pi))
    kernel[-1] = 0
    apart = (points[:, None] - torch.arange(length, device=device)).abs_().clamp_(max=radius + 1)
    matrix = kernel[apart]
    down = Banded(matrix, radius, -beyond, step)
    return down, Banded(matrix.T * step, radius // step, beyond / step, 1 / step)


def _scatter(columns: Tensor, weights: Tensor, length: int) -> Tensor:
    matrix = torch.zeros((length, length), device=weights.device)
    return matrix.scatter_add_(1, columns, weights)
