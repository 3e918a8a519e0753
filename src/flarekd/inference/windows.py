"""Where windows lie and how much each of their voxels counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional

from flarekd.errors import InputError

MOST_WINDOWS = 1_000_000
"""Of a scan. A hundred times as many as any model looks at; days of work."""

PAD_VALUE = 0.0
"""What surrounds an image smaller than the patch: zero after normalisation, as in training."""


def positions(size: int, patch: int, step: float) -> list[int]:
    """First voxels of windows that cover an axis evenly.

    ``ceil((size - patch) / (patch * step)) + 1`` windows, the first at 0, the last ending at
    `size`.

    Args:
        size: Length of the axis in voxels.
        patch: Length of a window in voxels.
        step: Largest distance of neighbouring windows as a share of the patch, in (0, 1].

    Returns:
        Ascending starts without repetition; ``[0]`` where one window covers the axis.

    Raises:
        ValueError: If `size` or `patch` is not positive or `step` is outside (0, 1].
    """
    _check(size, patch, step)
    if size <= patch:
        return [0]
    # the small term keeps a quotient that is whole up to rounding from gaining a window
    steps = math.ceil((size - patch) / (patch * step) - 1e-9)
    return _spread(size - patch, steps + 1)


def central_positions(size: int, patch: int, step: float = 0.5) -> list[int]:
    """Three windows about the middle of an axis, where the paper looks in y and x (method.md §6.4).

    An axis longer than three windows at `step` reach has its middle covered only (2·patch at step
    0.5); `extended_positions` adds the rest.

    Args:
        size: Length of the axis in voxels.
        patch: Length of a window in voxels.
        step: Distance of neighbouring windows as a share of the patch, in (0, 1]; 0.5 in the paper.

    Returns:
        Ascending starts without repetition: three, or fewer where the axis hardly exceeds the
        patch.

    Raises:
        ValueError: If `size` or `patch` is not positive or `step` is outside (0, 1].
    """
    _check(size, patch, step)
    stride = max(1, round(patch * step))
    if size <= patch:
        return [0]
    if size <= patch + 2 * stride:
        return _spread(size - patch, 3)
    middle = round(size / 2) - patch // 2
    return [middle - stride, middle, middle + stride]


def extended_positions(size: int, patch: int, step: float = 0.5) -> tuple[list[int], list[int]]:
    """Central positions and, at the same stride, those outside them as far as the axis goes.

    Args:
        size: Length of the axis in voxels.
        patch: Length of a window in voxels.
        step: Distance of neighbouring windows as a share of the patch, in (0, 1].

    Returns:
        All starts, ascending, covering the axis; and the indices of the central ones among them.

    Raises:
        ValueError: If `size` or `patch` is not positive or `step` is outside (0, 1].
    """
    central = central_positions(size, patch, step)
    stride = max(1, round(patch * step))
    last = max(size - patch, 0)
    before: list[int] = []
    while (before or central)[0] > 0:
        before.insert(0, max(0, (before or central)[0] - stride))
    after: list[int] = []
    while (after or central)[-1] < last:
        after.append(min(last, (after or central)[-1] + stride))
    return before + central + after, list(range(len(before), len(before) + len(central)))


def check_count(windows: int) -> None:
    """Refuse more windows of a scan than anybody waits for.

    Raises:
        InputError: If there are.
    """
    if windows > MOST_WINDOWS:
        raise InputError(
            f"the scan takes {windows:,} windows, more than {MOST_WINDOWS:,}",
            "give a larger --step, or take a model of larger patches or coarser spacing",
        )


def cover(starts: Sequence[int], patch: int) -> list[int]:
    """The fewest windows of an axis that together reach every voxel that all of them reach.

    Args:
        starts: Ascending starts that leave no gap, as `positions` gives them.
        patch: Length of a window.

    Returns:
        Ascending indices into `starts`, the first and the last among them.

    >>> cover([0, 5, 10, 15, 20], 10)
    [0, 2, 4]
    """
    chosen = [0]
    while chosen[-1] < len(starts) - 1:
        end = starts[chosen[-1]] + patch
        chosen.append(max(i for i, start in enumerate(starts) if start <= end))
    return chosen


def bounding_box(mask: torch.Tensor, least: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box that holds a mask and is at least so large.

    Args:
        mask: bool, any number of axes.
        least: Least size on each axis, at most that of `mask`.

    Returns:
        A slice an axis, within the mask; of size `least` where the mask is empty.
    """
    box: list[slice] = []
    for axis, (size, want) in enumerate(zip(mask.shape, least, strict=True)):
        line = mask.movedim(axis, 0).reshape(size, -1).any(1).nonzero()
        first, stop = (int(line[0]), int(line[-1]) + 1) if len(line) else (0, 0)
        # what is missing is taken from both sides, as far as there is something to take
        start = max(0, min(first, first - (want - stop + first) // 2, size - want))
        box.append(slice(start, max(stop, start + want)))
    return tuple(box)


def slice_positions(size: int, patch: int) -> list[int]:
    """Window starts of the teacher along one axis of a slice (method.md §6.3).

    One window up to `patch` (the slice is padded), the first and the last up to twice `patch` (the
    paper's 2×2), evenly spaced at half a patch beyond.

    Args:
        size: Length of the axis in pixels.
        patch: Length of a window in pixels.

    Returns:
        Ascending starts.

    Raises:
        ValueError: If `size` or `patch` is not positive.
    """
    if patch < size <= 2 * patch:
        return [0, size - patch]
    return positions(size, patch, 0.5)


def gaussian(patch: Sequence[int]) -> torch.Tensor:
    """How much each voxel of a window counts where windows overlap (method.md §6.1).

    A delta at ``size // 2`` filtered with σ = size / 8 on each axis, divided by its maximum. The
    filter of scipy ends at 4 σ, which is the border of the patch, so no voxel weighs zero.

    Args:
        patch: Window size, any number of axes.

    Returns:
        float32 of shape `patch`, in (0, 1], not to be written to.
    """
    return _gaussian(tuple(patch))


@lru_cache(maxsize=1)  # every slice of a scan asks for the same
def _gaussian(patch: tuple[int, ...]) -> torch.Tensor:
    weight = torch.ones((), dtype=torch.float64)
    for size in patch:
        distance = torch.arange(size, dtype=torch.float64) - size // 2
        weight = weight[..., None] * torch.exp(-0.5 * (distance / (size / 8)) ** 2)
    return weight.float()


def pad_to_patch(
    image: torch.Tensor, patch: Sequence[int]
) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Pad the last axes of an image on both sides so that one window fits.

    Args:
        image: Any shape that ends in the axes of `patch`.
        patch: Window size.

    Returns:
        The image with its last axes at least `patch` (itself where they are), and the slices of
        those axes that cut the original out again.
    """
    sizes = image.shape[-len(patch) :]
    missing = [max(0, want - have) for want, have in zip(patch, sizes, strict=True)]
    crop = tuple(slice(m // 2, m // 2 + have) for m, have in zip(missing, sizes, strict=True))
    if not any(missing):
        return image, crop
    amounts = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]
    return functional.pad(image, amounts, value=PAD_VALUE), crop


def _check(size: int, patch: int, step: float) -> None:
    if size < 1 or patch < 1:
        raise ValueError(f"size and patch must be positive, not {size} and {patch}")
    if not 0 < step <= 1:
        raise ValueError(f"step must be in (0, 1], not {step!r}")


def _spread(last: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to `last`, evenly spaced, halves to even, no repeats."""
    return sorted({round(index * last / (count - 1)) for index in range(count)})
