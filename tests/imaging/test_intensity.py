from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.imaging.intensity import (
    FLARE22_STATISTICS,
    Histogram,
    IntensityStatistics,
    foreground_sample,
    not_ct_reason,
    statistics,
)


def body(seed=0, air=True, padding=None):
    """Fat around soft tissue, with noise, bone and (if asked) air and padding outside."""
    generator = np.random.default_rng(seed)
    hu = np.full((12, 60, 60), -100.0)
    hu[:, 10:50, 10:50] = 50.0
    hu[:, 40:44, 28:32] = 700.0
    if air:
        hu[:, :4] = hu[:, :, :4] = -1000.0
    hu += generator.normal(0, 15, hu.shape)
    if padding is not None:
        hu[:, :2] = padding
    return hu.astype(np.int16)


@pytest.mark.paper
def test_flare22_statistics_are_those_published():
    assert IntensityStatistics(-972.0, 294.0, 79.43, 142.00) == FLARE22_STATISTICS


def test_normalisation_by_hand():
    scale = IntensityStatistics(lower=-100, upper=300, mean=50, sd=25)
    result = scale.normalize(np.array([[-1000, 50], [75, 3000]], np.int16))
    np.testing.assert_array_equal(result, [[-6, 0], [1, 10]])
    assert result.dtype == np.float32


def test_normalisation_leaves_its_input_alone():
    array = np.array([1000.0, -2000.0], np.float32)
    FLARE22_STATISTICS.normalize(array)
    np.testing.assert_array_equal(array, [1000, -2000])


def test_every_tenth_foreground_voxel_is_sampled():
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1:] = 2
    np.testing.assert_array_equal(foreground_sample(image, labels), [20, 30, 40, 50])
    assert foreground_sample(image, np.zeros_like(labels)).size == 0
    with pytest.raises(ValueError, match="labels"):
        foreground_sample(image, labels[1:])


def samples():
    generator = np.random.default_rng(0)
    return [
        np.rint(generator.normal(mean, 30, size)).astype(np.int16)
        for mean, size in ((0, 2000), (100, 501), (-1000, 3))
    ]


@pytest.mark.parametrize("percent", [0, 0.5, 17.3, 50, 99.5, 100])
def test_a_percentile_of_counts_is_that_of_the_sample(percent):
    pooled = np.concatenate(samples())
    found = Histogram.of(pooled).percentile(percent)
    assert found == pytest.approx(np.percentile(pooled.astype(np.float64), percent), abs=1e-9)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=40), st.floats(0, 100))
def test_counts_say_what_any_sample_says(values, percent):
    sample = np.asarray(values, np.int16)
    found = Histogram.of(sample)
    assert found.percentile(percent) == pytest.approx(
        np.percentile(sample.astype(np.float64), percent), rel=1e-9, abs=1e-6
    )
    assert found.mean == pytest.approx(sample.mean(dtype=np.float64))
    assert found.sd == pytest.approx(sample.std(dtype=np.float64), abs=1e-6)


def test_pooling_counts_is_counting_the_pool_in_any_order():
    pooled = Histogram.of(np.concatenate(samples()))
    for parts in (samples(), samples()[::-1]):
        found = Histogram.pooled(Histogram.of(part) for part in parts)
        np.testing.assert_array_equal(found.values, pooled.values)
        np.testing.assert_array_equal(found.counts, pooled.counts)
    assert Histogram.pooled([]).size == 0


def test_statistics_are_of_the_voxels_before_clipping():
    pooled = np.concatenate(samples()).astype(np.float64)
    found = statistics(Histogram.of(pooled))
    assert found.lower == pytest.approx(np.percentile(pooled, 0.5))
    assert found.upper == pytest.approx(np.percentile(pooled, 99.5))
    assert found.mean == pytest.approx(pooled.mean())
    assert found.sd == pytest.approx(pooled.std())


def test_with_a_window_mean_and_sd_are_of_what_it_leaves():
    pooled = np.concatenate(samples()).astype(np.float64)
    found = statistics(Histogram.of(pooled), (-20.5, 90.0))
    clipped = np.clip(pooled, -20.5, 90.0)
    assert (found.lower, found.upper) == (-20.5, 90.0)
    assert found.mean == pytest.approx(clipped.mean())
    assert found.sd == pytest.approx(clipped.std())


def test_constant_foreground_does_not_blow_up():
    found = statistics(Histogram.of(np.full(50, 40.0)))
    assert found.sd == 1.0
    np.testing.assert_array_equal(found.normalize(np.array([0, 40, 99])), [0, 0, 0])


def test_no_foreground_at_all_is_an_error():
    with pytest.raises(ValueError, match="no foreground voxel"):
        statistics(Histogram.pooled([]))


@pytest.mark.parametrize("numbers", [(0, -1, 0, 1), (0, 1, 0, 0), (0, 1, float("nan"), 1)])
def test_statistics_that_make_no_sense_are_refused(numbers):
    with pytest.raises(ValueError, match="make no sense"):
        IntensityStatistics(*numbers)


@pytest.mark.parametrize("padding", [None, -1024, -2000, -2048, -3024])
@pytest.mark.parametrize("air", [True, False])
def test_ct_with_any_padding_or_no_air_passes(air, padding):
    assert not_ct_reason(body(air=air, padding=padding)) is None
    assert not_ct_reason(body(air=air, padding=padding).astype(np.float32)) is None


def test_ct_clipped_to_a_soft_tissue_window_passes():
    assert not_ct_reason(np.clip(body(), -160, 240)) is None


def magnitude():
    """An MR: no negative values but interpolation's, no units."""
    generator = np.random.default_rng(1)
    signal = np.abs(generator.normal(300, 150, (10, 50, 50)))
    signal[:, :10] = np.abs(generator.normal(0, 8, (10, 10, 50))) - 5
    return signal.astype(np.int16)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (magnitude(), "an MR"),
        (np.clip(body() + 100, 0, 255).astype(np.uint8), "picture of 0 to 255"),
        ((body() / 1000).astype(np.float32), "normalised"),
        (FLARE22_STATISTICS.normalize(body()), "normalised"),
        (body() + 1024, "without its intercept"),
        (np.zeros((4, 5, 6), np.int16), "every voxel is 0"),
        (np.full((4, 5, 6), -2048, np.int16), "no voxel holds a measured value"),
        (np.zeros((0, 5, 6), np.int16), "no voxel holds a measured value"),
        (np.linspace(-1400, -400, 1000).reshape(10, 10, 10), "hardly any is fat or soft tissue"),
    ],
)
def test_what_is_no_ct_in_hu_is_told_with_a_reason(array, reason):
    assert reason in (not_ct_reason(array) or "")


def test_what_is_to_be_ignored_is_no_foreground():
    labels = np.full((1, 2, 20), 255, np.uint8)
    labels[0, 1] = 3
    image = np.arange(40, dtype=np.int16).reshape(1, 2, 20)
    np.testing.assert_array_equal(foreground_sample(image, labels), [20, 30])
