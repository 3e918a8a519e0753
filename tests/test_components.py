"""Connected parts as runs: against scipy's labelling and ITK's shape measures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from flarekd.components import (
    FEW_POINTS,
    Component,
    find_components,
    grow,
    largest_diameter_mm,
    without_small,
)

WHOLE = (slice(0, 9), slice(0, 11), slice(0, 13))
SHAPE = (9, 11, 13)


def parts_of(mask, box=WHOLE):
    return find_components(np.where(mask, 14, 0).astype(np.uint8), 14, box)


def as_mask(part: Component, shape=SHAPE):
    whole = np.zeros(shape, bool)
    whole[part.box] = part.mask()
    return whole


@given(seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.02, 0.06, 0.1, 0.3, 0.9]))
def test_the_parts_are_those_of_scipy_with_26_neighbours(seed, density):
    mask = np.random.default_rng(seed).random(SHAPE) < density
    theirs, count = ndimage.label(mask, np.ones((3, 3, 3)))
    parts = parts_of(mask)
    assert len(parts) == count
    sizes = [part.voxels for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    seen = np.zeros(SHAPE, bool)
    for part in parts:
        own = as_mask(part)
        (number,) = np.unique(theirs[own])
        np.testing.assert_array_equal(own, theirs == number)
        assert part.voxels == own.sum()
        assert part.box == ndimage.find_objects(own.astype(np.uint8))[0]
        np.testing.assert_allclose(part.centroid_zyx, np.argwhere(own).mean(axis=0))
        seen |= own
    np.testing.assert_array_equal(seen, mask)


@pytest.mark.parametrize("step", list(itertools.product((-1, 0, 1), repeat=3)), ids=str)
def test_two_voxels_that_share_a_corner_are_one_part_and_two_apart_are_not(step):
    mask = np.zeros(SHAPE, bool)
    mask[4, 5, 6] = mask[tuple(np.add((4, 5, 6), step))] = True
    assert len(parts_of(mask)) == 1
    mask = np.zeros(SHAPE, bool)
    mask[4, 5, 6] = mask[tuple(np.add((4, 5, 6), np.multiply(step, 2)))] = True
    assert len(parts_of(mask)) == (2 if any(step) else 1)


def test_the_end_of_a_row_does_not_touch_the_beginning_of_the_next():
    mask = np.zeros(SHAPE, bool)
    mask[3, 4, -1] = mask[3, 5, 0] = mask[3, -1, 6] = mask[4, 0, 6] = True
    assert [part.voxels for part in parts_of(mask)] == [1, 1, 1, 1]


def test_nothing_outside_the_box_and_no_other_class_is_looked_at():
    labels = np.full(SHAPE, 14, np.uint8)
    labels[2:4, 5:7, 5:9] = 3
    (part,) = find_components(labels, 14, (slice(1, 5), slice(4, 8), slice(4, 10)))
    assert part.voxels == 4 * 4 * 6 - 2 * 2 * 4


@given(
    points=st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=30),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_the_diameter_is_the_largest_of_all_distances(points, spacing):
    points = np.array(points)
    expected = pdist(points * np.array(spacing)).max(initial=0.0)
    assert largest_diameter_mm(points, spacing) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1, 1), 0.0),
        ((1, 1, 500), 499 * 0.5),
        ((300, 1, 1), 299 * 3.0),
        ((1, 30, 40), np.hypot(29 * 1.0, 39 * 0.5)),
        ((20, 1, 40), np.hypot(19 * 3.0, 39 * 0.5)),
        ((12, 30, 40), np.sqrt((11 * 3.0) ** 2 + 29.0**2 + (39 * 0.5) ** 2)),
    ],
)
def test_boxes_plates_and_lines_are_exact(size, expected):
    points = np.argwhere(np.ones(size, bool)) + 7
    assert largest_diameter_mm(points, (3.0, 1.0, 0.5)) == pytest.approx(expected, abs=1e-9)


def test_a_slanted_plate_of_many_voxels_is_exact():
    """Flat, but along no axis: what a hull in three dimensions refuses."""
    grid = np.argwhere(np.ones((25, 25), bool))
    points = np.column_stack([grid[:, 0] + grid[:, 1], grid[:, 0], grid[:, 1]])
    assert len(points) > FEW_POINTS
    spacing = (2.5, 0.7, 0.9)
    expected = pdist(points * spacing).max()
    assert largest_diameter_mm(points, spacing) == pytest.approx(expected, abs=1e-9)
    line = np.arange(300)[:, None] * np.array([1, -1, 2]) + np.array([0, 299, 0])
    expected = 299 * np.linalg.norm([2.5, 0.7, 1.8])
    assert largest_diameter_mm(line, spacing) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.8)])
def test_the_diameter_of_a_large_ball_is_itks_and_nearly_the_true_one(spacing):
    """ITK measures it the same way (``FeretDiameter``), pair by pair."""
    shape, radius = (45, 81, 79), 21.0
    away = [(np.arange(n) - n / 2 + 0.3) * step for n, step in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*away, indexing="ij")
    mask = z**2 + y**2 + x**2 <= radius**2
    (part,) = parts_of(mask, tuple(slice(0, n) for n in shape))
    found = largest_diameter_mm(part.ends(), spacing)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOn()
    shapes.Execute(image)
    assert found == pytest.approx(shapes.GetFeretDiameter(1), abs=1e-6)
    assert 2 * radius - 0.5 < found <= 2 * radius


@given(seed=st.integers(0, 2**32 - 1))
def test_growing_is_dilation_with_all_neighbours(seed):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.03
    before = mask.copy()
    np.testing.assert_array_equal(grow(mask), ndimage.binary_dilation(mask, np.ones((3, 3, 3))))
    in_plane = ndimage.binary_dilation(mask, np.ones((1, 3, 3)))
    np.testing.assert_array_equal(grow(mask, axes=(1, 2)), in_plane)
    np.testing.assert_array_equal(mask, before)


def test_a_class_without_a_voxel_has_no_parts():
    everywhere = (slice(0, 2), slice(0, 3), slice(0, 4))
    assert len(find_components(np.zeros((2, 3, 4), np.uint8), 1, everywhere)) == 0


def test_small_components_are_left_out_of_a_mask_and_counted():
    mask = np.zeros((3, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1  # of one piece by their corners
    mask[0, 5, 0:2] = 1
    mask[2, 5, 5] = 1
    kept, dropped = without_small(mask, 3)
    assert kept.dtype == np.uint8
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert dropped == 2
    for least in (0, 1):
        kept, dropped = without_small(mask, least)
        np.testing.assert_array_equal(kept, mask)
        assert dropped == 0
    assert without_small(np.zeros((2, 3, 3), np.uint8), 5)[1] == 0
