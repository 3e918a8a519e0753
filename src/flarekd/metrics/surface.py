"""How far the surfaces of two masks lie apart: NSD and HD95 (pure).

A surface is seen as small elements, one for each 2×2×2 block of voxels that is neither full nor
empty. An element lies at the block's corner and its area comes from ``surfel_areas``. Elements of
the one surface that coincide with one of the other need no search, the others are searched only as
far as somebody asks, and for a percentile of distances only those are that may lie at it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from flarekd.metrics.surfels import surfel_areas

HD95_SHARE = 0.95

CELL = 4
"""Edge in voxels of the cells by which elements far from a percentile are told: larger ones are
fewer, and tell less."""

Mask = NDArray[np.bool_]


class SurfacePair:
    """The surfaces of two masks, as elements with distances to the other surface.

    Where a mask touches the border of the array its surface closes there.

    Args:
        prediction: bool (z, y, x).
        reference: bool (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """

    def __init__(self, prediction: Mask, reference: Mask, spacing_zyx: Sequence[float]) -> None:
        require_one_shape(prediction, reference)
        self._spacing = np.asarray(spacing_zyx, np.float64)
        self._sides: list[_Side] = []
        either = prediction | reference
        if not either.any():
            return
        box = find_objects(either.view(np.uint8))[0]
        areas = surfel_areas(spacing_zyx)
        codes = [_neighbour_codes(mask[box]) for mask in (prediction, reference)]
        for ours, theirs in (codes, codes[::-1]):
            # neither empty (0) nor full (255): 255 + 1 wraps to 0
            points = np.argwhere(ours + np.uint8(1) > 1)
            at = tuple(points.T)
            is_common = theirs[at] + np.uint8(1) > 1
            self._sides.append(_Side(points, areas[ours[at]], is_common))

    def dice(self, tolerance_mm: float) -> float:
        """The share of both surfaces that lies within a tolerance of the other (NSD).

        Args:
            tolerance_mm: Distances up to and including this one are close.

        Returns:
            0..1, NaN where both masks are empty.
        """
        if not self._sides:
            return math.nan
        for ours, theirs in (self._sides, self._sides[::-1]):
            ours.search(theirs, self._spacing, tolerance_mm)
        close_mm2 = sum(side.area_within(tolerance_mm) for side in self._sides)
        return close_mm2 / sum(side.area_mm2 for side in self._sides)

    def hausdorff_mm(self, share: float = HD95_SHARE) -> float:
        """The distance within which this share of each surface's area lies from the other.

        HD95 where `share` is 0.95: the larger of both directions, as ``surface-distance`` takes it.

        Returns:
            Millimetres; NaN where one mask or both are empty, for then there is no distance.
        """
        if not self._sides or not all(len(side.points) for side in self._sides):
            return math.nan
        found = []
        for ours, theirs in (self._sides, self._sides[::-1]):
            found.append(ours.percentile(share, theirs, self._spacing))
        return max(found)


class _Side:
    """The elements of one surface.

    Attributes:
        points: Integers (n, 3), z, y, x.
        area_mm2: Of all elements.
        common_mm2: Of those that coincide with one of the other surface.
        apart: Indices (m,) of those that do not.
        areas_mm2: float64 (m,).
        distances_mm: float64 (m,), infinity where not known yet.
        known_mm: All distances up to this one are known.
        tree: Finds the nearest of the elements, once somebody has asked.
    """

    def __init__(
        self, points: NDArray[np.intp], areas_mm2: NDArray[np.float64], is_common: Mask
    ) -> None:
        self.points = points
        self.apart = np.flatnonzero(~is_common)
        self.areas_mm2 = areas_mm2[self.apart]
        self.area_mm2 = float(areas_mm2.sum())
        self.common_mm2 = float(areas_mm2[is_common].sum())
        self.distances_mm = np.full(len(self.apart), math.inf)
        self.known_mm = 0.0
        self.tree: cKDTree | None = None

    def search(self, other: _Side, spacing: NDArray[np.float64], radius_mm: float) -> None:
        """Fill in the distances to the other surface's elements, up to a radius."""
        if radius_mm > self.known_mm:
            self.known_mm = radius_mm
            unknown = np.flatnonzero(np.isinf(self.distances_mm))
            self._fill_in(unknown, other, spacing, radius_mm)

    def _fill_in(
        self,
        which: NDArray[np.intp],
        other: _Side,
        spacing: NDArray[np.float64],
        radius_mm: float = math.inf,
    ) -> None:
        if not len(other.points) or not len(which):
            return
        ours = self.points[self.apart[which]]
        within_mm = radius_mm * (1 + 1e-6) + 1e-9
        _, nearest = other.nearest(ours * spacing, spacing, within_mm)
        found = np.flatnonzero(nearest < len(other.points))
        # whole voxels times spacing, as a distance map measures: rounding must not part equals
        steps_mm = (ours[found] - other.points[nearest[found]]) * spacing
        self.distances_mm[which[found]] = np.sqrt(np.square(steps_mm).sum(axis=1))

    def nearest(
        self, places_mm: NDArray[np.float64], spacing: NDArray[np.float64], within_mm: float
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Distance to, and index of, the element nearest to each place (n, 3)."""
        if self.tree is None:
            own_mm = self.points * spacing
            self.tree = cKDTree(own_mm, balanced_tree=False, compact_nodes=False)
        found: tuple[NDArray[np.float64], NDArray[np.intp]] = self.tree.query(
            places_mm, distance_upper_bound=within_mm
        )
        return found

    def area_within(self, tolerance_mm: float) -> float:
        """Area of the elements that are no farther than this."""
        return self.common_mm2 + float(self.areas_mm2[self.distances_mm <= tolerance_mm].sum())

    def percentile(self, share: float, other: _Side, spacing: NDArray[np.float64]) -> float:
        """The least distance within which this share of the area lies; neither side is empty."""
        # rounding of the sums must not push an exact share to the next distance
        wanted_mm2 = share * self.area_mm2 * (1 - 1e-12) - self.common_mm2
        if wanted_mm2 <= 0:
            return 0.0
        distances_mm = self.distances_mm
        if self.area_within(self.known_mm) - self.common_mm2 < wanted_mm2:
            least_mm, most_mm = self._bounds(other, spacing)
            from_mm, to_mm = (
                _percentile(bound, self.areas_mm2, wanted_mm2) for bound in (least_mm, most_mm)
            )
            is_near = (least_mm <= to_mm) & (most_mm >= from_mm)
            unknown = np.flatnonzero(is_near & np.isinf(self.distances_mm))
            self._fill_in(unknown, other, spacing)
            # the others lie below or above, and need not be known better
            distances_mm = np.where(is_near, self.distances_mm, most_mm)
        return _percentile(distances_mm, self.areas_mm2, wanted_mm2)

    def _bounds(
        self, other: _Side, spacing: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances (m,) that those of the elements apart do not fall below, and not exceed."""
        points = self.points[self.apart]
        cells = points // CELL
        shape = cells.max(axis=0) + 1
        cell = np.ravel_multi_index(tuple(cells.T), tuple(shape))
        taken, of_cell = np.unique(cell, return_inverse=True)
        corners = np.stack(np.unravel_index(taken, tuple(shape)), axis=1) * CELL
        middles_mm = (corners + (CELL - 1) / 2) * spacing
        reach_mm = float(np.linalg.norm(spacing)) * (CELL - 1) / 2 * (1 + 1e-6) + 1e-6
        far_mm = other.nearest(middles_mm, spacing, math.inf)[0][of_cell]
        return far_mm - reach_mm, far_mm + reach_mm


def _percentile(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64], wanted_mm2: float
) -> float:
    """The least of the distances within which so much area lies, or the greatest."""
    order = np.argsort(distances_mm)
    within_mm2 = np.cumsum(areas_mm2[order])
    place = min(int(np.searchsorted(within_mm2, wanted_mm2)), len(order) - 1)
    return float(distances_mm[order[place]])


def surface_dice(
    prediction: Mask, reference: Mask, spacing_zyx: Sequence[float], tolerance_mm: float
) -> float:
    """The share of both surfaces that lies within a tolerance of the other (DeepMind's NSD).

    Args:
        prediction: bool (z, y, x).
        reference: bool (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x.
        tolerance_mm: Distances up to and including this one are close.

    Returns:
        0..1, NaN where both are empty.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """
    return SurfacePair(prediction, reference, spacing_zyx).dice(tolerance_mm)


def require_one_shape(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """Two arrays must be of one (z, y, x) shape.

    Raises:
        ValueError: If they are not.
    """
    if prediction.shape != reference.shape or prediction.ndim != 3:
        message = f"arrays are {prediction.shape} and {reference.shape}, not one (z, y, x) shape"
        raise ValueError(message)


def _neighbour_codes(mask: Mask) -> NDArray[np.uint8]:
    """Codes of all 2×2×2 blocks of a mask with emptiness around: uint8, each axis one longer."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for bit, (dz, dy, dx) in enumerate(np.ndindex(2, 2, 2)):
        z, y, x = (slice(d, d + n) for d, n in zip((dz, dy, dx), codes.shape, strict=True))
        codes |= padded[z, y, x] << np.uint8(bit)
    return codes
