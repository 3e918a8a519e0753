import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.training import oracles

from flarekd.training import linear

CPU = torch.device("cpu")


def values(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", [9, 64, 150])
def test_a_banded_matrix_acts_as_the_whole_matrix_does(axis, length):
    shape = [3, 5, 7]
    shape[axis] = length
    stack = values(*shape)
    operator = linear.gaussian(length, 1.5, CPU)
    expected = np.moveaxis(np.tensordot(operator.matrix, stack, (1, axis)), 0, axis)
    np.testing.assert_allclose(operator.along(stack, axis), expected, atol=1e-6)
    out = torch.empty(shape)
    assert operator.along(stack, axis, out=out) is out
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0, 2.5])
@pytest.mark.parametrize("length", [4, 40, 130])
def test_gaussian_equals_scipys(sigma, length):
    line = values(length)
    smooth = linear.gaussian(length, sigma, CPU).along(line, 0)
    expected = ndimage.gaussian_filter1d(line.numpy().astype(float), sigma, mode="reflect")
    np.testing.assert_allclose(smooth, expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [3.0, 9.0, 13.0])
@pytest.mark.parametrize("length", [20, 128, 301])
def test_a_wide_gaussian_by_way_of_fewer_points_equals_scipys(sigma, length):
    line = values(length)
    down, up = linear.wide_gaussian(length, sigma, CPU)
    assert len(down.matrix) < (length + 8 * sigma) / (sigma / 2 - 1)
    expected = ndimage.gaussian_filter1d(line.numpy().astype(float), sigma, mode="constant")
    smooth = up.along(down.along(line, 0), 0)
    np.testing.assert_allclose(smooth, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("length", "zoom"), [(48, 0.5), (48, 0.73), (150, 0.61), (40, 1.0)])
def test_the_way_through_a_coarser_grid_equals_the_plain_version(length, zoom):
    line = values(length)
    expected = oracles.coarse(line.numpy(), round(length * zoom))
    np.testing.assert_allclose(linear.coarse(length, zoom, CPU).along(line, 0), expected, atol=1e-5)
    if zoom == 1.0:
        np.testing.assert_allclose(expected, line)
