"""Between the axes of a file and the canonical ones: permutations and flips, never resampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.imaging.findings import Finding
from flarekd.imaging.volume import Geometry

MOST_SHEAR_DEGREES = 2.0
"""Axes farther than this from perpendicular are a tilted gantry's, not a header's rounding."""

LEAST_SHEAR_DEGREES = 0.05
"""Less is the rounding of float32 and not worth a word."""


def to_canonical(stored: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Turn an array in a file's order into canonical orientation.

    Args:
        stored: (k, j, i), the stored axes with the fastest last.
        geometry: The file's grid.

    Returns:
        (z, y, x) along LPS, C-contiguous; the same array where nothing is to be done.

    Raises:
        ValueError: If `stored` is not the size that `geometry` says.
    """
    if stored.shape != geometry.size_xyz[::-1]:
        message = f"array is {stored.shape}, its geometry {geometry.size_xyz[::-1]} (k, j, i)"
        raise ValueError(message)
    array = stored.transpose(_order(geometry))
    return np.ascontiguousarray(array[_flip(geometry)])


def to_stored(canonical: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Turn a canonical array back into the file's order: the inverse of ``to_canonical``.

    Args:
        canonical: (z, y, x).
        geometry: The file's grid.

    Returns:
        (k, j, i), a view.
    """
    return canonical[_flip(geometry)].transpose(np.argsort(_order(geometry)))


def nearest_rotation(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal matrix nearest to direction cosines that a header has rounded or sheared.

    Polar decomposition; mirrored axes stay mirrored.

    Args:
        direction: 3×3, column i the direction of stored axis i, unit length or nearly so.

    Returns:
        3×3, orthonormal.

    Raises:
        ValueError: If a number is not finite, axes coincide, or an axis has to turn by more than
            ``MOST_SHEAR_DEGREES``.
    """
    if not np.isfinite(direction).all():
        message = f"its direction cosines are not numbers: {direction.ravel().tolist()}"
        raise ValueError(message)
    norms = np.linalg.norm(direction, axis=0)
    left, stretch, right = np.linalg.svd(direction / np.maximum(norms, 1e-6))
    # the product is the determinant, which numpy takes by a way that divides tiny numbers by zero
    if norms.min() < 1e-6 or stretch.prod() < 1e-3:
        message = f"its axes do not span space: direction {np.round(direction, 4).tolist()}"
        raise ValueError(message)
    rotation: NDArray[np.float64] = left @ right
    degrees = _turn_degrees(direction, rotation)
    if degrees > MOST_SHEAR_DEGREES:
        message = f"its axes are sheared: {degrees:.1f}° from perpendicular, as by a tilted gantry"
        raise ValueError(message)
    return rotation


def of_shear(direction: NDArray[np.float64]) -> list[Finding]:
    """That ``nearest_rotation`` had to turn an axis, where it is worth a word.

    Args:
        direction: As ``nearest_rotation`` takes it; columns of any length.

    Raises:
        ValueError: As ``nearest_rotation``.
    """
    degrees = _turn_degrees(direction, nearest_rotation(direction))
    if degrees <= LEAST_SHEAR_DEGREES:
        return []
    what = f"its axes are sheared by {degrees:.2f}°"
    return [Finding("mended", what, "the nearest upright axes are taken")]


def _turn_degrees(direction: NDArray[np.float64], rotation: NDArray[np.float64]) -> float:
    unit = direction / np.linalg.norm(direction, axis=0)
    # by the sine: the cosine of a small angle is lost in rounding
    sine = np.linalg.norm(np.cross(unit, rotation, axis=0), axis=0).max()
    cosine = (unit * rotation).sum(axis=0).min()
    return math.degrees(math.atan2(float(sine), float(cosine)))


def _order(geometry: Geometry) -> tuple[int, int, int]:
    x, y, z = geometry.axes
    return 2 - z, 2 - y, 2 - x


def _flip(geometry: Geometry) -> tuple[slice, slice, slice]:
    x, y, z = (slice(None, None, -1 if flip else 1) for flip in geometry.flips)
    return z, y, x
