import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from tests.training import oracles

from flarekd.training import transforms


def pictures(n=2, shape=(5, 20, 24), seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, *shape)), (0, 0, 1, 1)) * 4 + 0.3
    return torch.from_numpy(smooth.astype(np.float32))


def vector(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def after(transform, images, parameters, **options):
    result = images.clone()
    transform(result, parameters, **options)
    return result.numpy()


def test_noise_is_normal_has_the_drawn_deviation_and_is_replayed_by_its_seed():
    images = torch.ones(2, 4, 100, 100)
    noisy = after(transforms.add_noise, images, [(0.1, 3), (0.02, 4)]) - 1
    assert noisy[0].std() == pytest.approx(0.1, rel=0.02)
    assert noisy[1].std() == pytest.approx(0.02, rel=0.02)
    assert stats.kstest(noisy[0].ravel(), stats.norm(0, 0.1).cdf).pvalue > 0.01
    again = after(transforms.add_noise, images, [(0.1, 3), (0.1, 4)]) - 1
    np.testing.assert_array_equal(again[0], noisy[0])
    np.testing.assert_allclose(again[1], noisy[1] * 5, atol=1e-6)


def test_blur_equals_scipys_gaussian():
    images = pictures()
    blurred = after(transforms.blur, images, [0.5, 2.5])
    for image, sigma, result in zip(images.numpy(), (0.5, 2.5), blurred, strict=True):
        expected = ndimage.gaussian_filter(image.astype(float), sigma, mode="reflect")
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_blur_of_one_slice_equals_scipys_in_the_plane():
    images = pictures(1, (1, 20, 150))
    expected = ndimage.gaussian_filter(images[0, 0].numpy().astype(float), 0.8, mode="reflect")
    np.testing.assert_allclose(after(transforms.blur, images, [0.8])[0, 0], expected, atol=1e-5)


def test_contrast_stretches_about_the_mean_within_the_range():
    images = pictures()
    stretched = after(transforms.scale_contrast, images, vector(0.8, 1.25))
    for image, factor, result in zip(images.numpy(), (0.8, 1.25), stretched, strict=True):
        expected = (image.astype(float) - image.mean()) * factor + image.mean()
        expected = np.clip(expected, image.min(), image.max())
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert stretched[1].max() == images[1].max()
    assert stretched[1].min() == images[1].min()


def test_low_resolution_goes_through_a_coarser_grid_slice_by_slice():
    images = pictures()
    result = after(transforms.lower_resolution, images, [0.5, 0.8])
    for image, zoom, coarse in zip(images.numpy(), (0.5, 0.8), result, strict=True):
        rows = np.apply_along_axis(oracles.coarse, 1, image, round(20 * zoom))
        expected = np.apply_along_axis(oracles.coarse, 2, rows, round(24 * zoom))
        np.testing.assert_allclose(coarse, expected, atol=1e-4)


def test_low_resolution_loses_what_is_finer():
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(1, 1, 32, 32)
    assert after(transforms.lower_resolution, board, [0.5]).std() < 0.01


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_equals_the_plain_version(inverted):
    images = pictures()
    sign = -1 if inverted else 1
    bent = after(transforms.bend_gamma, images, vector(0.7, 1.5), inverted=inverted)
    for image, exponent, result in zip(images.numpy(), (0.7, 1.5), bent, strict=True):
        expected = sign * oracles.gamma(sign * image, exponent)
        np.testing.assert_allclose(result, expected, atol=2e-5)
        assert np.abs(result - image).max() > 0.05


@pytest.mark.parametrize("inverted", [False, True])
def test_a_flat_image_stays_as_it_is(inverted):
    images = torch.full((1, 2, 8, 8), -1.37)
    for result in (
        after(transforms.bend_gamma, images, vector(1.5), inverted=inverted),
        after(transforms.scale_contrast, images, vector(1.25)),
        after(transforms.blur, images, [0.7]),
        after(transforms.lower_resolution, images, [0.6]),
    ):
        np.testing.assert_allclose(result, images, atol=1e-6)


def test_tissue_shifts_each_class_by_its_own_and_what_has_no_label_not_at_all():
    labels = torch.zeros(3, 20, 24, dtype=torch.uint8)
    labels[:, 2:8], labels[:, 10:15] = 1, 14
    image = pictures(1, (3, 20, 24))[0]
    shifted = image.clone()
    transforms.shift_tissue(shifted, labels, 0.5, 7)
    moved = shifted - image
    values = [moved[labels == label] for label in (0, 1, 14)]
    assert (values[0] == 0).all()
    means = [part.mean().item() for part in values[1:]]
    for part, mean in zip(values[1:], means, strict=True):
        torch.testing.assert_close(part, torch.full_like(part, mean))
    assert min(abs(means[0]), abs(means[1]), abs(means[0] - means[1])) > 1e-3
    twice = image.clone()
    transforms.shift_tissue(twice, labels, 1.0, 7)
    torch.testing.assert_close(twice - image, moved * 2)
