import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from flarekd import config
from flarekd.training import augment
from flarekd.training.augment import Draw

PAPER = config.load(config.builtin("flare23")).student.augmentation


def picture(shape=(3, 40, 48), seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
    return torch.from_numpy((smooth / smooth.std()).astype(np.float32))


def labelled(image):
    return (image > 0.3).to(torch.uint8) + (image > 1.0).to(torch.uint8)


def test_without_a_draw_the_central_crop_is_left_as_it_is():
    image = picture()
    patch, labels = augment.apply(image, labelled(image), Draw(), (3, 32, 40))
    torch.testing.assert_close(patch, image[:, 4:36, 4:44])
    torch.testing.assert_close(labels, labelled(image)[:, 4:36, 4:44])


@pytest.mark.parametrize(("degrees", "scale"), [(0.0, 1.2), (0.0, 0.8), (30.0, 1.0), (-75.0, 0.9)])
def test_rotation_and_scaling_equal_scipys_resampling(degrees, scale):
    image = picture()
    target = (24, 28)
    patch, labels = augment.apply(
        image, labelled(image), Draw(rotation=degrees, scale=scale), (3, *target)
    )
    angle = math.radians(degrees)
    y, x = np.mgrid[: target[0], : target[1]].astype(float)
    y, x = y - (target[0] - 1) / 2, x - (target[1] - 1) / 2
    where = np.stack(
        [
            scale * (math.cos(angle) * y - math.sin(angle) * x) + (40 - 1) / 2,
            scale * (math.sin(angle) * y + math.cos(angle) * x) + (48 - 1) / 2,
        ]
    )
    linear = ndimage.map_coordinates(image[1].numpy(), where, order=1, mode="constant")
    cubic = ndimage.map_coordinates(image[1].numpy(), where, order=3, mode="constant")
    inside = ndimage.map_coordinates(np.ones((40, 48)), where, order=1, mode="constant") == 1
    # torch's cubic kernel is not scipy's spline: both lie close to each other on a smooth picture
    assert np.abs(patch[1].numpy() - cubic)[inside].max() < 0.05
    assert np.abs(linear - cubic)[inside].max() < 0.2
    expected = np.zeros(target, np.uint8)
    for label in (1, 2):
        share = ndimage.map_coordinates(
            (labelled(image)[1].numpy() == label).astype(float), where, order=1, mode="constant"
        )
        expected[share >= 0.5] = label
    assert (labels[1].numpy() == expected)[inside].mean() > 0.999


def test_elastic_offsets_are_smoothed_noise_of_the_drawn_amplitude():
    draw = Draw(elastic=(50.0, 3.0, 7))
    grid = augment._grid(draw, (64, 64), (64, 64))[0]
    plain = augment._grid(Draw(), (64, 64), (64, 64))[0]
    offsets = ((grid - plain) * 63 / 2).flip(-1).movedim(-1, 0).numpy()
    noise = torch.rand((2, 64, 64), generator=torch.Generator().manual_seed(7)).numpy() * 2 - 1
    expected = np.stack([ndimage.gaussian_filter(n, 3.0, mode="constant") for n in noise]) * 50.0
    np.testing.assert_allclose(offsets, expected, atol=2e-3)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0, 2.5])
def test_blur_equals_scipys_gaussian(sigma):
    image = picture((5, 20, 24))
    expected = ndimage.gaussian_filter(image.numpy(), sigma, mode="reflect")
    np.testing.assert_allclose(augment.blur(image, sigma).numpy(), expected, atol=1e-5)
    flat = picture((1, 20, 24))
    expected = ndimage.gaussian_filter(flat[0].numpy(), sigma, mode="reflect")
    np.testing.assert_allclose(augment.blur(flat, sigma)[0].numpy(), expected, atol=1e-5)


def test_contrast_keeps_mean_and_range():
    image = picture()
    low = augment.contrast(image, 0.8)
    assert float(low.mean()) == pytest.approx(float(image.mean()), abs=1e-5)
    assert float(low.std()) == pytest.approx(0.8 * float(image.std()), rel=1e-4)
    high = augment.contrast(image, 1.25)
    assert float(high.max()) == float(image.max())
    assert float(high.min()) == float(image.min())


def test_gamma_keeps_mean_and_deviation_and_order():
    image = picture()
    for exponent in (0.7, 1.5):
        bent = augment.gamma(image, exponent)
        assert float(bent.mean()) == pytest.approx(float(image.mean()), abs=1e-4)
        assert float(bent.std()) == pytest.approx(float(image.std()), rel=1e-4)
        order = image.flatten().argsort()
        assert bool((bent.flatten()[order].diff() >= -1e-5).all())
        assert float((bent - image).abs().max()) > 0.05


def test_noise_has_the_drawn_deviation_and_is_replayed_by_its_seed():
    image = torch.zeros(4, 100, 100)
    noisy = augment.noise(image, 0.1, 3)
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noisy, augment.noise(image, 0.1, 3))
    assert not torch.equal(noisy, augment.noise(image, 0.1, 4))


def test_low_resolution_loses_detail_and_keeps_slices_apart():
    image = picture()
    coarse = augment.low_resolution(image, 0.5)
    assert coarse.shape == image.shape
    only = augment.low_resolution(image[1:2], 0.5)
    torch.testing.assert_close(coarse[1:2], only)
    checkerboard = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    assert float(augment.low_resolution(checkerboard[None].float(), 0.5).std()) < 0.01


@pytest.mark.paper
def test_transforms_fire_as_often_as_published_within_their_ranges():
    rng = np.random.default_rng(0)
    draws = [augment.sample(rng, PAPER) for _ in range(6000)]

    def share(present):
        return sum(present) / len(draws)

    spread = 0.02
    assert share(d.elastic is not None for d in draws) == pytest.approx(0.2, abs=spread)
    assert share(d.rotation != 0 for d in draws) == pytest.approx(0.2, abs=spread)
    assert share(d.scale != 1 for d in draws) == pytest.approx(0.2, abs=spread)
    assert share(d.noise is not None for d in draws) == pytest.approx(0.1, abs=spread)
    assert share(d.blur is not None for d in draws) == pytest.approx(0.1, abs=spread)
    assert share(d.brightness is not None for d in draws) == pytest.approx(0.15, abs=spread)
    assert share(d.contrast is not None for d in draws) == pytest.approx(0.15, abs=spread)
    assert share(d.low_resolution is not None for d in draws) == pytest.approx(0.125, abs=spread)
    assert share(d.gamma_inverted is not None for d in draws) == pytest.approx(0.1, abs=spread)
    assert share(d.gamma is not None for d in draws) == pytest.approx(0.3, abs=spread)
    scales = [d.scale for d in draws if d.scale != 1]
    assert sum(s < 1 for s in scales) / len(scales) == pytest.approx(0.5, abs=0.05)
    assert 0.7 <= min(scales) < 0.75
    assert 1.35 < max(scales) <= 1.4
    amplitudes = [d.elastic[0] for d in draws if d.elastic]
    assert 0 <= min(amplitudes) < 10
    assert 190 < max(amplitudes) <= 200


@given(st.integers(0, 2**32 - 1))
def test_one_seed_gives_one_patch(seed):
    image = picture((2, 24, 24))
    patches = [
        augment.apply(
            image, labelled(image), augment.sample(np.random.default_rng(seed), PAPER), (2, 16, 16)
        )
        for _ in range(2)
    ]
    assert torch.equal(patches[0][0], patches[1][0])
    assert torch.equal(patches[0][1], patches[1][1])
    assert bool(torch.isfinite(patches[0][0]).all())
    assert set(patches[0][1].unique().tolist()) <= {0, 1, 2}
