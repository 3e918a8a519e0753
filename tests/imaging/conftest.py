from __future__ import annotations

import itertools

import numpy as np
import pytest

from flarekd.imaging.volume import Geometry

SIZE_XYZ = (5, 6, 7)  # of the canonical grid: no two alike
SPACING_XYZ = (0.7, 0.9, 2.5)


def _rotation(degrees_xyz):
    x, y, z = np.radians(degrees_xyz)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def all_48():
    """Every order of the axes with every choice of directions: stored axis i → world axis, sign."""
    signs = itertools.product((1, -1), repeat=3)
    return list(itertools.product(itertools.permutations(range(3)), signs))


def stored_grid(order, signs, degrees_xyz=(0.0, 0.0, 0.0), origin_lps=(-31.5, 12.25, 101.0)):
    """The same box in the patient, stored along other axes.

    Stored axis i runs along world axis ``order[i]``, backwards where ``signs[i]`` is −1.
    """
    world = _rotation(degrees_xyz)
    direction = np.zeros((3, 3))
    for stored, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        direction[:, stored] = sign * world[:, axis]
    size = tuple(SIZE_XYZ[axis] for axis in order)
    spacing = tuple(SPACING_XYZ[axis] for axis in order)
    # the first stored voxel lies at the far end of every axis that runs backwards
    steps = np.zeros(3)
    for axis, sign in zip(order, signs, strict=True):
        steps[axis] = (SIZE_XYZ[axis] - 1) * SPACING_XYZ[axis] if sign < 0 else 0.0
    origin = np.asarray(origin_lps) + world @ steps
    return Geometry(size, spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


@pytest.fixture
def grid():
    return stored_grid


@pytest.fixture
def orientations():
    return all_48()


@pytest.fixture
def oblique(grid):
    """Anisotropic, oblique, off the origin, mirrored."""
    return grid((2, 0, 1), (-1, 1, 1), (16.0, -7.0, 4.0))


@pytest.fixture
def voxels(oblique):
    """int16, canonical, every voxel another number."""
    count = int(np.prod(oblique.shape_zyx))
    return np.arange(-100, count - 100, dtype=np.int16).reshape(oblique.shape_zyx)
