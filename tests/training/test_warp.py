import numpy as np
import pytest
import torch
from tests.training import oracles

from flarekd.training.warp import cubic_weights, warp


def scene(slices, shape=(40, 48), seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(slices, *shape)).astype(np.float32)
    labels = np.zeros((slices, *shape), np.uint8)
    labels[:, 6:20, 8:30] = 1
    labels[:, 14:30, 20:41] = 2
    labels[:, 18:22, 18:22] = 14
    labels[:, ::7, ::5] = 3
    return torch.from_numpy(image), torch.from_numpy(labels)


def somewhere(shape=(23, 31), low=-6.0, high=54.0, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, (2, *shape)).astype(np.float32)


@pytest.mark.parametrize("slices", [1, 2, 18])
@pytest.mark.parametrize("limits", [(-6.0, 54.0), (10.0, 24.0)])
def test_images_and_labels_equal_the_plain_version_outside_too(slices, limits):
    image, labels = scene(slices)
    y, x = somewhere(low=limits[0], high=limits[1])
    moved, moved_labels = warp(image, labels, torch.from_numpy(y), torch.from_numpy(x))
    assert moved.shape == moved_labels.shape == (slices, 23, 31)
    for index in range(slices):
        np.testing.assert_allclose(moved[index], oracles.cubic(image[index], y, x), atol=5e-5)
        expected, clear = oracles.warped_labels(labels[index], y, x)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(moved_labels[index].numpy()[clear], expected[clear])
    assert {0, 1, 2} <= set(moved_labels.unique().tolist())


@pytest.mark.parametrize("slices", [1, 2])
def test_labels_that_tie_or_lack_a_majority(slices):
    cells = np.array([[1, 2], [0, 0]]), np.array([[1, 1], [2, 0]]), np.array([[1, 2], [3, 0]])
    between = {"across": (0.0, 0.5), "centre": (0.5, 0.5), "left edge": (0.5, 0.0)}
    expected = {
        "across": (2, 1, 2),  # the higher of two that tie
        "centre": (0, 1, 0),  # a quarter each is no majority
        "left edge": (1, 2, 3),  # half background: the label
    }
    for name, (row, column) in between.items():
        for cell, label in zip(cells, expected[name], strict=True):
            labels = torch.from_numpy(cell.astype(np.uint8)).expand(slices, 2, 2).contiguous()
            place = torch.tensor([[row]]), torch.tensor([[column]])
            _, moved = warp(torch.zeros(slices, 2, 2), labels, *place)
            assert moved.flatten().tolist() == [label] * slices, name


@pytest.mark.parametrize("slices", [1, 3])
def test_places_that_are_pixels_give_the_pixels(slices):
    image, labels = scene(slices)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    moved, moved_labels = warp(image, labels, y, x)
    torch.testing.assert_close(moved.contiguous(), image, atol=5e-5, rtol=0)
    assert torch.equal(moved_labels, labels)


@pytest.mark.parametrize("slices", [1, 3])
def test_all_places_outside_give_zeros(slices):
    image, labels = scene(slices)
    y, x = torch.full((2, 4, 5), -90.0)
    for moved in warp(image, labels, y, x) + warp(image, labels, y + 400, x + 400):
        assert moved.shape == (slices, 4, 5)
        assert not moved.any()


def test_cubic_weights_are_those_of_the_kernel():
    offset = torch.linspace(0, 1, 11)
    expected = oracles.keys(offset.numpy()[:, None] - np.arange(-1, 3))
    np.testing.assert_allclose(cubic_weights(offset), expected, atol=1e-6)
