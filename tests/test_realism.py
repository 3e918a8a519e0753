"""The measures by which phantoms are compared with patients."""

import numpy as np
import pytest
from benchmarks import realism_measures as measures
from scipy import ndimage

from flarekd.labels import IDS


def noise(sigma, shape=(12, 60, 60)):
    return np.random.default_rng(0).normal(0, sigma, shape).astype(np.float32)


def test_the_body_is_neither_table_nor_air_but_what_is_hollow_in_it():
    image = np.full((4, 60, 60), -1000, np.float32)
    image[:, 10:40, 10:50] = 40
    image[:, 20:25, 20:30] = -900  # gas
    image[:, 50:53, 5:55] = 0  # the table
    body = measures.body_mask(image)
    assert body[:, 22, 25].all()
    assert not body[:, 51].any()
    assert not body[:, 5].any()


def test_the_power_of_white_noise_is_flat_and_its_sum_the_variance():
    image, everywhere = noise(10.0), np.ones((12, 60, 60), bool)
    _, power = measures.noise_power(image, everywhere)
    # over all 1/9 mm⁻² of frequencies white noise has 100 HU²; the lowest went with the planes
    np.testing.assert_allclose(power[1:], 100 * measures.SPACING**2, rtol=0.06)
    assert measures.noise_hu(image, everywhere) == pytest.approx((10, 10), rel=0.03)
    smooth = ndimage.gaussian_filter(image, (0, 1, 1))
    _, power = measures.noise_power(smooth, everywhere)
    assert power[-1] < 0.05 * power[0]
    assert np.isnan(measures.noise_power(image, np.zeros_like(everywhere))[1]).all()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_softer_edge_is_wider(sigma):
    step = np.zeros((30, 30, 30), np.float32)
    step[:, :, 15:] = 100
    image = ndimage.gaussian_filter(step, sigma)
    mask = image > 50
    distances, profile = measures.edge_profile(image, mask)
    assert profile[distances < -8].mean() > 95
    assert profile[distances > 8].mean() < 5
    # the steepest part of an erf of this sigma covers sqrt(2 pi) sigma
    assert measures.width_mm(profile) == pytest.approx(2.5 * sigma * measures.SPACING, rel=0.6)


def test_organs_that_the_scan_cuts_have_no_volume_and_places_are_those_from_the_kidneys():
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[5:11, 20:24, 4:8] = IDS["right_kidney"]
    labels[5:11, 20:24, 32:36] = IDS["left_kidney"]
    labels[14:18, 18:26, 18:22] = IDS["spleen"]
    labels[15:20, 5:15, 5:15] = IDS["liver"]  # reaches the last slice
    volumes, places = measures.volumes_ml(labels), measures.places_mm(labels)
    assert volumes["spleen"] == pytest.approx(4 * 8 * 4 * 27 / 1000)
    assert "liver" not in volumes
    assert places["spleen"] == pytest.approx((0, 0, 24))
    assert places["left_kidney"] == pytest.approx((42, 0, 0))
    labels[labels == IDS["left_kidney"]] = 0
    assert measures.places_mm(labels) == {}


def test_steepness_is_that_below_the_skin():
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32) * 6, (12, 60, 60)).copy()
    body = np.ones(ramp.shape, bool)
    # 6 HU a voxel of 3 mm
    assert measures.steepness(ramp - 150, body) == pytest.approx((2, 2))
