"""Arrays that never part from their place in the patient.

Arrays are always ``(z, y, x)`` in one canonical axis-aligned orientation (LPS as ITK means it: x
grows to the patient's left, y to the back, z upward). The geometry is the one of the *file*, kept
untouched so that what is written lies exactly on what was read; ``axes`` and ``flips`` say how the
file's axes become canonical ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flarekd.imaging.findings import Finding

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]

GEOMETRY_TOLERANCE_MM = 1e-2
"""Corners of two grids nearer than this are the same place: far below a voxel, above float32."""


@dataclass(frozen=True)
class Geometry:
    """The grid of a file, as stored (ITK's convention: axes x, y, z; world coordinates LPS in mm).

    Attributes:
        size_xyz: Voxels along the stored axes.
        spacing_xyz: Millimetres along the stored axes.
        origin_xyz: World position of the first voxel's centre, mm.
        direction: 3×3 direction cosines, row-major; column i is the direction of stored axis i.
    """

    size_xyz: Shape
    spacing_xyz: Triple
    origin_xyz: Triple = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @cached_property
    def axes(self) -> tuple[int, int, int]:
        """For each canonical axis x, y, z, the stored axis that runs nearest along it."""
        cosines = np.abs(np.asarray(self.direction).reshape(3, 3))
        x, y, z = max(
            permutations(range(3)),
            key=lambda order: float(sum(cosines[world, axis] for world, axis in enumerate(order))),
        )
        return x, y, z

    @cached_property
    def flips(self) -> tuple[bool, bool, bool]:
        """For each canonical axis x, y, z, whether its stored axis runs against it."""
        cosines = np.asarray(self.direction).reshape(3, 3)
        x, y, z = (bool(cosines[world, axis] < 0) for world, axis in enumerate(self.axes))
        return x, y, z

    @cached_property
    def spacing_zyx(self) -> Triple:
        """Spacing along the canonical axes z, y, x, mm."""
        x, y, z = (self.spacing_xyz[axis] for axis in self.axes)
        return z, y, x

    @cached_property
    def shape_zyx(self) -> Shape:
        """Shape of the canonical array."""
        x, y, z = (self.size_xyz[axis] for axis in self.axes)
        return z, y, x

    def corners(self) -> NDArray[np.float64]:
        """World positions (8, 3) of the corner voxels' centres in stored order, mm.

        An axis of one voxel counts as two, so that its spacing and direction are seen.
        """
        last = np.maximum(np.asarray(self.size_xyz) - 1, 1)
        index = np.asarray([[i, j, k] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * last
        cosines = np.asarray(self.direction).reshape(3, 3)
        steps = index * np.asarray(self.spacing_xyz)
        corners: NDArray[np.float64] = np.asarray(self.origin_xyz) + steps @ cosines.T
        return corners

    def affine_zyx(self) -> NDArray[np.float64]:
        """From an index (z, y, x) of the canonical array to world coordinates x, y, z in mm (3×4).

        The columns are the steps along z, y and x, and the place of voxel (0, 0, 0).
        """
        steps = np.asarray(self.direction).reshape(3, 3) * np.asarray(self.spacing_xyz)
        place = np.asarray(self.origin_xyz, np.float64)
        columns = []
        for axis, is_flipped in zip(self.axes[::-1], self.flips[::-1], strict=True):
            step = steps[:, axis]
            if is_flipped:
                place = place + (self.size_xyz[axis] - 1) * step
            columns.append(-step if is_flipped else step)
        return np.column_stack([*columns, place])

    def mismatch(self, other: Geometry) -> str | None:
        """Why `other` is not the same grid, or None where it is.

        Sizes are compared exactly; spacing, origin and direction by the farthest corner, and those
        that differ are named.
        """
        distance_mm = self.far_corner_mm(other)
        off = f"the farthest corner lies {distance_mm:.2f} mm off"
        if self.size_xyz != other.size_xyz:
            ours, theirs = ("×".join(map(str, size)) for size in (self.size_xyz, other.size_xyz))
            return f"{theirs} voxels against {ours}, {off}"
        if distance_mm <= GEOMETRY_TOLERANCE_MM:
            return None
        parts = {
            "spacing": (self.spacing_xyz, other.spacing_xyz),
            "origin": (self.origin_xyz, other.origin_xyz),
            "direction": (self.direction, other.direction),
        }
        unlike = [
            name
            for name, pair in parts.items()
            if not np.allclose(*pair, rtol=0, atol=GEOMETRY_TOLERANCE_MM / max(self.size_xyz))
        ]
        cause = f"another {' and '.join(unlike)}, " if unlike else ""
        return f"{cause}{off}"

    def far_corner_mm(self, other: Geometry) -> float:
        """The largest distance between corners of the two grids that are the same in both, mm."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())


class Grid(NamedTuple):
    """What a file's header says.

    Attributes:
        geometry: The file's grid.
        notes: What is amiss in it and yet can be read.
    """

    geometry: Geometry
    notes: tuple[Finding, ...] = ()


class Stored(NamedTuple):
    """What a file holds, as stored.

    Attributes:
        array: True values (k, j, i).
        geometry: The file's grid.
        notes: What is amiss and yet can be read.
    """

    array: NDArray[Any]
    geometry: Geometry
    notes: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: int16 or float32 ``(z, y, x)`` in canonical orientation, and its file's geometry.

    Attributes:
        array: The voxels.
        geometry: Where they lie.
        notes: What the reader found amiss and mended, or used with doubt.
    """

    array: NDArray[Any]
    geometry: Geometry
    notes: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape_zyx:
            message = (
                f"array is {self.array.shape}, its geometry {self.geometry.shape_zyx} (z, y, x)"
            )
            raise ValueError(message)


@dataclass(frozen=True, eq=False)
class LabelMap(Volume):
    """A label map: uint8 ``(z, y, x)``, ids of ``labels.py``."""
