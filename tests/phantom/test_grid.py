import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekd.phantom.grid import Grid, enlarge, slices_between, smooth_noise, spline_taps


@given(factor=st.sampled_from([1, 2, 4]), slope=st.floats(-3, 3), level=st.floats(-50, 50))
@settings(max_examples=25, deadline=None)
def test_enlarging_keeps_a_plane_a_plane_away_from_the_edge(factor, slope, level):
    x = np.arange(12, dtype=np.float32)
    field = np.broadcast_to(level + slope * x, (2, 8, 12)).astype(np.float32)
    fine = enlarge(field, factor)
    assert fine.shape == (2, 8 * factor, 12 * factor)
    at = (np.arange(12 * factor) + 0.5) / factor - 0.5
    inner = slice(3 * factor, -3 * factor)
    assert fine[1, 5, inner] == pytest.approx((level + slope * at)[inner], abs=1e-3)


def test_the_field_grid_of_a_fine_scan_covers_it_with_the_same_middle():
    scan = Grid((30, 64, 48), (1.0, 0.8, 0.7), (-15.0, -20.0, -30.0))
    fields = scan.coarse(4)
    assert fields.shape[1:] == (16, 12)
    assert fields.spacing == (3.0, pytest.approx(3.2), pytest.approx(2.8))
    for axis in (1, 2):
        assert fields.axis(axis).mean() == pytest.approx(scan.axis(axis).mean(), abs=1e-4)
    assert fields.axis(0)[0] <= scan.axis(0)[0]
    assert fields.axis(0)[-1] >= scan.axis(0)[-1]


def test_the_field_grid_of_a_coarse_scan_is_the_scan():
    scan = Grid((3, 5, 7), (5.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    assert scan.coarse(1) is scan


def test_a_scan_that_cannot_be_coarsened_is_refused():
    with pytest.raises(ValueError, match="30×31 pixels cannot be divided by 4"):
        Grid((3, 30, 31), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)).coarse(4)


def test_slices_lie_between_the_planes_that_enclose_them():
    fine = Grid((10, 4, 4), (1.25, 1.0, 1.0), (2.0, 0.0, 0.0))
    coarse = fine.coarse(4)
    lower, weight = slices_between(coarse, fine)
    planes = coarse.axis(0)
    assert planes[lower] * (1 - weight) + planes[lower + 1] * weight == pytest.approx(fine.axis(0))


@given(position=st.floats(1, 40))
def test_spline_weights_sum_to_one(position):
    _, weights = spline_taps(np.asarray([position]))
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert (weights >= -1e-6).all()


def test_smooth_noise_has_unit_variance_and_the_correlation_asked_for():
    field = smooth_noise(np.random.default_rng(3), (60, 80, 90), (3.0, 3.0, 3.0), 15.0)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(1, abs=0.1)
    step = np.diff(field, axis=2).std()
    assert step < 0.35  # neighbours 3 mm apart are alike
    apart = field[:, :, 20:] * field[:, :, :-20]
    assert abs(apart.mean()) < 0.1  # 60 mm apart they have nothing in common
