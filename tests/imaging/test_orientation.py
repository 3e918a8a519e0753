from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekd.imaging.orientation import nearest_rotation, to_canonical, to_stored
from flarekd.imaging.volume import Geometry

angles = st.floats(-30, 30)
orders = st.permutations(range(3))
signs = st.tuples(*[st.sampled_from([1, -1])] * 3)


def rotation(x, y, z):
    result = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(np.radians(degrees))
        turn[first, second] = -np.sin(np.radians(degrees))
        turn[second, first] = np.sin(np.radians(degrees))
        result = result @ turn
    return result


@settings(deadline=None)  # a busy machine is no failure
@given(order=orders, signs=signs, turn=st.tuples(angles, angles, angles), seed=st.integers(0, 99))
def test_canonical_axes_grow_left_back_and_up_and_going_back_restores(order, signs, turn, seed):
    direction = rotation(*turn)[:, order] * signs
    geometry = Geometry((2, 3, 4), (0.7, 0.9, 2.5), (3.0, -4.0, 5.0), tuple(direction.ravel()))
    stored = np.random.default_rng(seed).integers(-9, 9, (4, 3, 2)).astype(np.int16)
    canonical = to_canonical(stored, geometry)
    assert canonical.shape == geometry.shape_zyx
    assert canonical.flags.c_contiguous
    np.testing.assert_array_equal(to_stored(canonical, geometry), stored)
    # where each stored voxel lies, carried along: it grows with its canonical index
    index = np.stack(np.meshgrid(*map(range, (4, 3, 2)), indexing="ij"), -1)[..., ::-1]
    world = np.asarray(geometry.origin_xyz) + (index * geometry.spacing_xyz) @ direction.T
    for world_axis, numpy_axis in ((0, 2), (1, 1), (2, 0)):
        along = to_canonical(np.ascontiguousarray(world[..., world_axis]), geometry)
        assert (np.diff(along, axis=numpy_axis) > 0).all()


def test_an_array_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"array is \(2, 3, 4\)"):
        to_canonical(np.zeros((2, 3, 4)), Geometry((2, 3, 4), (1.0, 1.0, 1.0)))


def test_rounded_cosines_become_the_nearest_rotation():
    exact = rotation(16, 3, -5)
    rounded = np.round(exact, 3)
    mended = nearest_rotation(rounded)
    np.testing.assert_allclose(mended.T @ mended, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(mended, exact, atol=1e-3)


def test_mirrored_axes_stay_mirrored():
    mirrored = rotation(5, 6, 7) * [1, 1, -1]
    np.testing.assert_allclose(nearest_rotation(mirrored), mirrored, atol=1e-12)


def test_a_tilted_gantry_is_refused_with_its_angle():
    sheared = np.eye(3)
    sheared[:, 2] = [0, np.sin(np.radians(12)), np.cos(np.radians(12))]
    with pytest.raises(ValueError, match=r"sheared: 6\.0°"):
        nearest_rotation(sheared)


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (np.ones((3, 3)), "do not span space"),
        (np.zeros((3, 3)), "do not span space"),
        (np.asarray([[-1, -1, 0], [0, 0, 1], [9e-314, 0, 0]]), "do not span space"),
        (np.full((3, 3), np.nan), "are not numbers"),
    ],
)
def test_axes_that_are_none_are_refused(direction, message):
    with pytest.raises(ValueError, match=message):
        nearest_rotation(direction)
