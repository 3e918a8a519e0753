import numpy as np
import pytest

from flarekd.phantom.grid import Grid
from flarekd.phantom.shapes import (
    FAR_MM,
    Space,
    blend,
    carve,
    curve,
    ellipsoid,
    is_empty,
    meet,
    spheres,
    tube,
)


@pytest.fixture(scope="module")
def space():
    """An undeformed patient: nominal coordinates are the grid's own."""
    grid = Grid((40, 50, 60), (3.0, 2.0, 2.5), (-60.0, -50.0, -75.0))
    z, y, x = (grid.axis(axis) for axis in range(3))
    nominal = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1])
    return Space(grid, nominal, (z, y, x))


def test_a_ball_is_the_distance_to_its_surface(space):
    field = ellipsoid(space, space.whole, (5.0, -3.0, 4.0), (20.0, 20.0, 20.0))
    exact = np.sqrt((space.x - 5) ** 2 + (space.y + 3) ** 2 + (space.z - 4) ** 2) - 20
    assert field == pytest.approx(exact, abs=1e-2)


def test_an_ellipsoid_has_its_volume_whichever_way_it_is_turned(space):
    voxel = np.prod(space.grid.spacing)
    for angles in ((0, 0, 0), (30, -20, 45)):
        field = ellipsoid(space, space.whole, (0.0, 0.0, 0.0), (30.0, 18.0, 24.0), angles)
        assert (field < 0).sum() * voxel == pytest.approx(4 / 3 * np.pi * 30 * 18 * 24, rel=0.02)


def test_a_straight_tube_is_the_distance_to_its_line_near_it(space):
    box, field = tube(space, [(0, 0, -30), (0, 0, 30)], [9.0, 9.0])
    middle = np.abs(space.z[box]) < 20
    exact = np.sqrt(space.x[box] ** 2 + space.y[box] ** 2) - 9
    near = middle & (np.abs(exact) < 3)
    assert field[near] == pytest.approx(exact[near], abs=0.6)


def test_balls_outside_the_grid_leave_the_field_far(space):
    box = space.box((-10, -10, -10), (10, 10, 10))
    field = spheres(space, box, np.float32([[500, 0, 0]]), np.float32([5]))
    assert (field == FAR_MM).all()


def test_a_box_beyond_the_grid_is_empty(space):
    assert is_empty(space.box((0, 0, 400), (10, 10, 420)))
    assert not is_empty(space.box((0, 0, 0), (1, 1, 1)))


def test_a_curve_passes_through_its_ends_with_its_radii():
    path, radii = curve([(0, 0, 0), (10, 5, 0), (20, 0, 10)], [3.0, 5.0, 4.0], 1.0)
    assert path[0] == pytest.approx([0, 0, 0], abs=1e-4)
    assert path[-1] == pytest.approx([20, 0, 10], abs=1e-4)
    assert (radii[0], radii[-1]) == (3.0, 4.0)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 1.6


def test_union_difference_and_intersection_hold_where_surfaces_are_apart():
    a, b = np.float32([-10.0, -10, 10, 10]), np.float32([-10.0, 10, -10, 10])
    assert (blend(a, b, 2.0) < 0).tolist() == [True, True, True, False]
    assert (carve(a, b, 2.0) < 0).tolist() == [False, True, False, False]
    assert (meet(a, b, 2.0) < 0).tolist() == [True, False, False, False]
