"""Where the classes of a label map lie along the body, how large they are, and what cuts them off.

Arithmetic on arrays and nothing else, one slice at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACES = (("feet", "head"), ("front", "back"), ("right", "left"))
"""The faces of a canonical array: first and last slice along z, y and x."""


@dataclass(frozen=True)
class Extent:
    """One class of a label map.

    Attributes:
        voxels: How many there are.
        ml: Their volume.
        low_mm: Its lower end along z, above the lower end of the scan.
        high_mm: Its upper end, likewise.
        centre_mm: The mean height of its voxels, likewise.
        cut_off: The ends of the scan that it touches, names of ``FACES``: its volume is a lower
            bound there.
    """

    voxels: int
    ml: float
    low_mm: float
    high_mm: float
    centre_mm: float
    cut_off: tuple[str, ...]

    @property
    def is_whole_in_z(self) -> bool:
        """Whether neither the first nor the last slice cuts it."""
        return not {"feet", "head"} & set(self.cut_off)


def count_ids(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels of each id in each slice: int64 (z, 256).

    Args:
        labels: uint8 (z, y, x).
    """
    counts = np.zeros((labels.shape[0], 256), np.int64)
    for z, plane in enumerate(labels):  # slice by slice: bincount makes eight bytes of each voxel
        if plane.any():
            counts[z] = np.bincount(plane.ravel(), minlength=256)
        else:
            counts[z, 0] = plane.size
    return counts


def measure_extents(
    labels: NDArray[np.uint8], spacing_zyx: tuple[float, float, float]
) -> dict[int, Extent]:
    """Measure every foreground class.

    Args:
        labels: uint8 (z, y, x), canonical.
        spacing_zyx: Millimetres.

    Returns:
        Id to extent, ascending, classes that are there only. Millimetres and millilitres are
        rounded to three decimals.
    """
    profile = count_ids(labels)
    profile[:, 0] = 0
    faces = _on_faces(labels)
    step, rows, columns = spacing_zyx
    found = {}
    for label in np.flatnonzero(profile.sum(axis=0)).tolist():
        counts = profile[:, label]
        slices = np.flatnonzero(counts)
        voxels = int(counts.sum())
        centre = float(counts @ np.arange(counts.size)) / voxels + 0.5
        found[label] = Extent(
            voxels,
            round(voxels * step * rows * columns / 1000, 3),
            low_mm=round(float(slices[0]) * step, 3),
            high_mm=round(float(slices[-1] + 1) * step, 3),
            centre_mm=round(centre * step, 3),
            cut_off=tuple(name for name, ids in faces.items() if label in ids),
        )
    return found


def _on_faces(labels: NDArray[np.uint8]) -> dict[str, set[int]]:
    """For each face of the scan the ids that touch it."""
    return {
        name: set(np.unique(np.take(labels, end, axis=axis)).tolist())
        for axis, names in enumerate(FACES)
        for name, end in zip(names, (0, -1), strict=True)
    }
