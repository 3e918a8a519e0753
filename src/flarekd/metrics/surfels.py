"""The area of the surface in each of the 256 possible 2×2×2 blocks of voxels (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray


def surfel_areas(spacing_zyx: Sequence[float]) -> NDArray[np.float64]:
    """The surface area in each of the 256 possible 2×2×2 blocks, by neighbour code.

    Bit ``4·z + 2·y + x`` of a code says that this voxel of the block is inside. The surface cuts
    the block's edges in their middles; a block's area is that of its triangles (marching cubes).

    Args:
        spacing_zyx: Millimetres along z, y, x.

    Returns:
        Areas in mm², float64 (256,).
    """
    z, y, x = spacing_zyx
    # a triangle's area along an axis grows with the spacings of the other two
    return np.asarray(np.linalg.norm(_area_vectors() * [y * x, z * x, z * y], axis=2).sum(axis=1))


@cache
def _area_vectors() -> NDArray[np.float64]:
    """Area vectors of every code's triangles at unit spacing: float64 (256, 4, 3), zero-padded."""
    vectors = np.zeros((256, 4, 3))
    for code in range(1, 255):
        # a block and its complement share one surface: the one that keeps the fewer voxels apart
        fewer = code if code.bit_count() <= 4 else 255 - code
        triangles = [triangle for loop in _loops(fewer) for triangle in _widest(loop)]
        vectors[code, : len(triangles)] = triangles
    return vectors


def _loops(code: int) -> Iterator[list[NDArray[np.float64]]]:
    """The closed polygons in which the surface cuts a block's sides, as edge middles (z, y, x)."""
    follows: dict[tuple[float, ...], tuple[float, ...]] = {}
    for axis, side in product(range(3), (0, 1)):
        corners = np.insert([[0, 0], [1, 0], [1, 1], [0, 1]][:: 1 if side else -1], 0, side, axis=1)
        ring = np.roll(corners, axis, axis=1)  # seen from outside, all six sides turn the same way
        inside = [code >> int(corner @ (4, 2, 1)) & 1 for corner in ring]
        middles = [tuple((ring[i - 1] + ring[i]) / 2) for i in range(4)]
        for first in range(4):
            if inside[first] and not inside[first - 1]:
                end = next(i % 4 for i in range(first + 1, first + 4) if not inside[i % 4])
                follows[middles[first]] = middles[end]
    while follows:
        loop = [next(iter(follows))]
        while loop[-1] in follows:
            loop.append(follows.pop(loop[-1]))
        yield [np.asarray(point) for point in loop[1:]]


def _widest(loop: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Area vectors of the largest triangulation of a loop: the published table's choice."""
    if len(loop) < 3:
        return []
    choices = []
    for k in range(1, len(loop) - 1):
        triangle = np.cross(loop[k] - loop[0], loop[-1] - loop[0]) / 2
        choices.append([triangle, *_widest(loop[: k + 1]), *_widest(loop[k:])])
    return max(choices, key=lambda vectors: float(np.linalg.norm(vectors, axis=1).sum()))
