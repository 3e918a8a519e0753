import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tests.training import oracles

from flarekd import config
from flarekd.training import augment
from flarekd.training.augment import Draw

PAPER = config.load(config.builtin("flare23")).student.augmentation
CPU = torch.device("cpu")
EVERYTHING = Draw(
    elastic=(60.0, 4.0, 7),
    rotation=25.0,
    scale=0.9,
    noise=(0.05, 11),
    blur=0.7,
    brightness=1.1,
    contrast=1.2,
    low_resolution=0.7,
    gamma_inverted=0.8,
    gamma=1.4,
)


def picture(shape=(3, 40, 48), seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
    return torch.from_numpy((smooth / smooth.std()).astype(np.float32))


def labelled(image):
    return (image > 0.3).to(torch.uint8) + (image > 1.0).to(torch.uint8)


def apply_one(image, draw, patch):
    images, labels = augment.apply(image[None], labelled(image)[None], [draw], patch)
    return images[0], labels[0]


def places(draw, source, target):
    """Rows and columns in the source, by numpy and scipy."""
    y, x = np.mgrid[: target[0], : target[1]].astype(float)
    y, x = y - (target[0] - 1) / 2, x - (target[1] - 1) / 2
    if draw.elastic:
        alpha, sigma, seed = draw.elastic
        noise = augment.uniform((2, *target), seed).numpy().astype(float)
        down, right = (ndimage.gaussian_filter(n, sigma, mode="constant") * alpha for n in noise)
        y, x = y + down, x + right
    angle, scale = math.radians(draw.rotation), draw.scale
    return (
        scale * (math.cos(angle) * y - math.sin(angle) * x) + (source[0] - 1) / 2,
        scale * (math.sin(angle) * y + math.cos(angle) * x) + (source[1] - 1) / 2,
    )


def test_without_a_draw_the_central_crop_is_left_as_it_is():
    image = picture()
    patch, labels = apply_one(image, Draw(), (3, 32, 40))
    torch.testing.assert_close(patch, image[:, 4:36, 4:44])
    torch.testing.assert_close(labels, labelled(image)[:, 4:36, 4:44])


SPATIAL = [
    Draw(scale=1.2),
    Draw(scale=0.8),
    Draw(rotation=30.0),
    Draw(rotation=-75.0, scale=0.9),
    Draw(elastic=(60.0, 4.0, 7)),
    Draw(elastic=(60.0, 4.0, 7), rotation=120.0, scale=1.3),
]


@pytest.mark.parametrize("draw", SPATIAL)
@pytest.mark.parametrize("slices", [1, 3])
def test_one_resampling_equals_the_plain_version(draw, slices):
    image, target = picture((slices, 40, 48)), (24, 28)
    patch, labels = apply_one(image, draw, (slices, *target))
    y, x = places(draw, (40, 48), target)
    rounding = 2e-3 if draw.elastic else 1e-5  # the field is exact to some 1e-4 of its amplitude
    for index in range(slices):
        expected = oracles.cubic(image[index], y, x)
        np.testing.assert_allclose(patch[index], expected, atol=rounding)
        expected, clear = oracles.warped_labels(labelled(image)[index], y, x)
        same = labels[index].numpy() == expected
        assert same.mean() > 0.99
        assert draw.elastic or same[clear].all()


@pytest.mark.parametrize("draw", SPATIAL)
def test_it_lies_close_to_scipys_spline(draw):
    image, target = picture(), (24, 28)
    patch, _ = apply_one(image, draw, (3, *target))
    where = np.stack(places(draw, (40, 48), target))
    spline = ndimage.map_coordinates(image[1].numpy(), where, order=3, mode="constant")
    edge = np.array([40, 48])[:, None, None] - 3
    inside = ((where >= 2) & (where <= edge)).all(axis=0)
    assert inside.mean() > 0.6
    # cubic convolution is not a spline, but on a smooth picture they hardly differ
    assert np.abs(patch[1].numpy() - spline)[inside].max() < 0.05


def test_elastic_offsets_are_smoothed_noise_of_the_drawn_amplitude():
    y, x = augment.places(Draw(elastic=(50.0, 3.0, 7)), (64, 64), CPU)
    plain = augment.places(Draw(), (64, 64), CPU)
    offsets = np.stack([y - plain[0], x - plain[1]])
    noise = augment.uniform((2, 64, 64), 7).numpy()
    expected = np.stack([ndimage.gaussian_filter(n, 3.0, mode="constant") for n in noise]) * 50.0
    assert np.abs(expected).max() > 5
    np.testing.assert_allclose(offsets, expected, atol=4e-3)


def test_the_noise_of_an_elastic_field_is_uniform_and_white():
    noise = augment.uniform((3, 201, 199), 7)  # not a multiple of eight
    assert noise.shape == (3, 201, 199)
    assert -1 < float(noise.min()) < -0.99
    assert 0.99 < float(noise.max()) < 1
    histogram = torch.histc(noise, 16, -1, 1) / noise.numel()
    assert float((histogram - 1 / 16).abs().max()) < 0.004
    for axis in (1, 2):
        for step in (1, 8):
            assert float((noise * noise.roll(step, axis)).mean()) == pytest.approx(0, abs=0.005)
    assert torch.equal(noise, augment.uniform((3, 201, 199), 7))
    assert not torch.equal(noise, augment.uniform((3, 201, 199), 8))


def test_intensities_change_in_the_published_order():
    image, draw = picture(), replace(EVERYTHING, elastic=None, rotation=0.0, scale=1.0)
    patch, _ = apply_one(image, draw, (3, 40, 48))
    expected = image.numpy().astype(float)
    generator = torch.Generator().manual_seed(11)
    expected = expected + 0.05 * torch.randn(image.shape, generator=generator).numpy()
    expected = ndimage.gaussian_filter(expected, 0.7, mode="reflect") * 1.1
    mean, low, high = expected.mean(), expected.min(), expected.max()
    expected = np.clip((expected - mean) * 1.2 + mean, low, high)
    for axis, length in ((1, 40), (2, 48)):
        size = round(length * 0.7)
        expected = np.apply_along_axis(oracles.coarse, axis, expected, size)
    expected = oracles.gamma(-oracles.gamma(-expected, 0.8), 1.4)
    np.testing.assert_allclose(patch, expected, atol=1e-3)


def test_a_batch_equals_its_samples_one_by_one():
    draws = [EVERYTHING, Draw(), Draw(gamma=0.8, contrast=0.9), replace(EVERYTHING, blur=None)]
    images = torch.stack([picture(seed=seed) for seed in range(4)])
    labels, before = labelled(images), images.clone()
    batch = augment.apply(images, labels, draws, (2, 24, 32))
    assert batch[0].shape == batch[1].shape == (4, 2, 24, 32)
    assert batch[0].dtype == torch.float32
    assert batch[1].dtype == torch.uint8
    for index, draw in enumerate(draws):
        alone = augment.apply(images[index, None], labels[index, None], [draw], (2, 24, 32))
        torch.testing.assert_close(batch[0][index], alone[0][0], atol=1e-6, rtol=0)
        assert torch.equal(batch[1][index], alone[1][0])
    assert torch.equal(images, before)


def test_regions_of_several_sizes_make_one_batch():
    large, small = picture((3, 40, 48)), picture((3, 24, 32), seed=1)
    images, labels = augment.apply(
        [large, small], [labelled(large), labelled(small)], [EVERYTHING, Draw()], (3, 24, 32)
    )
    assert torch.equal(images[1], small)
    assert torch.equal(labels[1], labelled(small))
    torch.testing.assert_close(images[0], apply_one(large, EVERYTHING, (3, 24, 32))[0])


def test_two_threads_compute_what_one_does():
    images = torch.stack([picture((8, 90, 90), seed=seed) for seed in range(2)])
    draws = [EVERYTHING, replace(EVERYTHING, rotation=100.0)]
    one = augment.apply(images, labelled(images), draws, (8, 64, 64))
    torch.set_num_threads(2)
    try:
        two = augment.apply(images, labelled(images), draws, (8, 64, 64))
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(one[0], two[0], atol=1e-4, rtol=0)
    assert float((one[1] == two[1]).float().mean()) > 0.9999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("slices", [1, 8])
def test_a_gpu_computes_what_the_cpu_does(slices):
    images = torch.stack([picture((slices, 90, 90), seed=seed) for seed in range(2)])
    draws = [EVERYTHING, replace(EVERYTHING, rotation=100.0, noise=None)]
    cpu = augment.apply(images, labelled(images), draws, (slices, 64, 64))
    gpu = augment.apply(images.cuda(), labelled(images).cuda(), draws, (slices, 64, 64))
    assert gpu[0].is_cuda
    torch.testing.assert_close(gpu[0].cpu(), cpu[0], atol=1e-2, rtol=0)
    assert float((gpu[0].cpu() - cpu[0]).abs().mean()) < 1e-4
    assert float((gpu[1].cpu() == cpu[1]).float().mean()) > 0.999


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
        apply_one(image, augment.sample(np.random.default_rng(seed), PAPER), (2, 16, 16))
        for _ in range(2)
    ]
    assert torch.equal(patches[0][0], patches[1][0])
    assert torch.equal(patches[0][1], patches[1][1])
    assert bool(torch.isfinite(patches[0][0]).all())
    assert set(patches[0][1].unique().tolist()) <= {0, 1, 2}
