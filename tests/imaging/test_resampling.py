from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.resampling import resample, resample_labels, target_shape

shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 14))


def oracle(array, shape):
    """Linear between half-pixel centres, the border continued, by scipy in float64."""
    axes = [
        (np.arange(new) + 0.5) * old / new - 0.5
        for old, new in zip(array.shape, shape, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(array.astype(np.float64), grid, order=1, mode="nearest")


@settings(deadline=None)  # a busy machine is no failure
@given(old=shapes, new=shapes, seed=st.integers(0, 99))
def test_a_scan_is_resampled_as_scipy_does_with_half_pixel_centres(old, new, seed):
    array = np.random.default_rng(seed).integers(-1024, 2000, old).astype(np.int16)
    result = resample(array, new)
    assert result.dtype == np.float32
    assert result.shape == new
    np.testing.assert_allclose(result, oracle(array, new), atol=2e-2)


@pytest.mark.parametrize("new", [(10, 41, 37), (40, 31, 29), (73, 60, 64), (1, 41, 64)])
def test_slice_by_slice_is_the_whole_at_once_but_for_rounding(new):
    array = np.random.default_rng(0).integers(-1024, 2000, (40, 60, 64)).astype(np.int16)
    whole = functional.interpolate(
        torch.from_numpy(array)[None, None].float(), new, mode="trilinear", align_corners=False
    )
    # HU of thousands: float32 rounds them by 1e-4, its coordinates by a few times that
    np.testing.assert_allclose(resample(array, new), whole[0, 0].numpy(), atol=5e-2)
    assert np.abs(resample(array, new) - whole[0, 0].numpy()).mean() < 1e-3


@settings(deadline=None)  # a busy machine is no failure
@given(old=shapes, new=shapes, seed=st.integers(0, 99))
def test_labels_are_the_class_with_most_at_each_voxel(old, new, seed):
    labels = np.random.default_rng(seed).choice([0, 3, 7, 14], old).astype(np.uint8)
    result = resample_labels(labels, new)
    assert result.dtype == np.uint8
    assert result.shape == new
    ids = np.array([0, 3, 7, 14], np.uint8)
    shares = np.stack([oracle(labels == label, new) for label in ids])
    expected = ids[shares.argmax(0)]
    best, second = np.sort(shares, axis=0)[:-3:-1]
    clear = best - second > 1e-5  # where two tie, rounding decides
    np.testing.assert_array_equal(result[clear], expected[clear])
    assert set(np.unique(result)) <= set(np.unique(labels))


def test_a_block_keeps_its_place_and_volume_on_a_finer_grid():
    labels = np.zeros((6, 10, 12), np.uint8)
    labels[2:4, 3:7, 4:9] = 5
    fine = resample_labels(labels, (12, 30, 24))
    expected = np.kron(labels, np.ones((2, 3, 2), np.uint8))
    # only corners and edges may round off
    assert (fine != expected).sum() <= 0.1 * expected.astype(bool).sum()
    found = np.argwhere(fine == 5)
    np.testing.assert_array_equal(found.min(0), [4, 9, 8])
    np.testing.assert_array_equal(found.max(0), [7, 20, 17])


def test_memory_order_does_not_matter():
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    turned = array[::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(
        resample(turned, (4, 4, 9)), resample(np.ascontiguousarray(turned), (4, 4, 9))
    )
    labels = (turned > 0).astype(np.uint8)[:, ::-1]
    np.testing.assert_array_equal(
        resample_labels(labels, (4, 4, 9)), resample_labels(np.ascontiguousarray(labels), (4, 4, 9))
    )


@pytest.mark.parametrize("new", [(3, 20, 24), (9, 12, 30), (6, 12, 14)])
def test_what_is_done_first_is_done_before_voxels_are_mixed(new):
    array = np.random.default_rng(0).integers(-1024, 2000, (6, 12, 14)).astype(np.int16)
    first = IntensityStatistics(-200.0, 300.0, 50.0, 100.0).normalize
    np.testing.assert_array_equal(resample(array, new, first), resample(first(array), new))


def test_the_same_shape_is_a_copy():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    result = resample(array, (2, 3, 4))
    np.testing.assert_array_equal(result, array)
    labels = array.astype(np.uint8)
    copy = resample_labels(labels, (2, 3, 4))
    copy[0, 0, 0] = 9
    assert labels[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("shape", "spacing", "target", "expected"),
    [
        ((90, 512, 512), (2.5, 0.781, 0.781), (4.0, 1.2, 1.2), (56, 333, 333)),
        ((1, 512, 512), (0.5, 0.8164, 0.8164), (4.0, 1.2, 1.2), (1, 348, 348)),
        ((20, 91, 117), (3.0, 3.0, 3.0), (3.0, 3.0, 3.0), (20, 91, 117)),
    ],
)
def test_the_new_shape_covers_the_same_box(shape, spacing, target, expected):
    assert target_shape(shape, spacing, target) == expected
