"""Which case and which part of it a training patch comes from (method.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Zyx = tuple[int, int, int]


class Locatable(Protocol):
    """What sampling needs to know of a case."""

    @property
    def shape_zyx(self) -> Zyx:
        """Shape of the case's array."""

    @property
    def classes(self) -> Sequence[int]:
        """Foreground classes present."""

    def locations(self, label: int) -> NDArray[np.integer]:
        """Voxels (n, 3) of class `label`, z y x."""


def is_forced(index: int, batch: int, share: float) -> bool:
    """Whether sample `index` of a batch must hold foreground: the last `share` of it.

    With the paper's 0.33 that is 1 of 4 (teacher) and 1 of 2 (student).

    >>> [is_forced(i, 4, 0.33) for i in range(4)]
    [False, False, False, True]
    >>> [is_forced(i, 2, 0.33) for i in range(2)]
    [False, True]
    """
    return index >= round(batch * (1 - share))


def draw_start(
    generator: np.random.Generator,
    case: Locatable,
    patch: Zyx,
    oversize: Zyx,
    *,
    forced: bool,
    class_weights: Sequence[float] = (),
) -> Zyx:
    """Draw where the region that is read for a patch begins.

    A forced patch is centred on a random voxel of a random class present, for a 2D patch one of a
    random slice that holds the class. Any other lies anywhere, reaching over the border by no more
    than its oversize margin.

    Args:
        generator: Source of randomness.
        case: The case.
        patch: Voxels of the final patch.
        oversize: Voxels of the region read.
        forced: Whether it must hold foreground, where the case has any.
        class_weights: Of each class, background first: how often a forced patch is centred on it.
            Empty: all classes present alike, as the paper's code draws them.

    Returns:
        First voxel (z, y, x) of the region; may be negative, the rest is padding.
    """
    lowest, highest = [], []
    for length, inner, outer in zip(case.shape_zyx, patch, oversize, strict=True):
        margin = max(outer - inner, outer - length)
        lowest.append(-(margin // 2))
        highest.append(max(length + margin // 2 + margin % 2 - outer, -(margin // 2)))
    if forced and case.classes:
        weights = np.asarray([class_weights[c] if class_weights else 1.0 for c in case.classes])
        label = case.classes[int(generator.choice(len(weights), p=weights / weights.sum()))]
        voxels = case.locations(label)
        if patch[0] == 1:
            slices = np.unique(voxels[:, 0])
            voxels = voxels[voxels[:, 0] == slices[generator.integers(len(slices))]]
        voxel = voxels[generator.integers(len(voxels))]
        z, y, x = (
            max(low, int(center) - outer // 2)
            for low, center, outer in zip(lowest, voxel, oversize, strict=True)
        )
        return z, y, x
    z, y, x = (
        int(generator.integers(low, high + 1)) for low, high in zip(lowest, highest, strict=True)
    )
    return z, y, x
