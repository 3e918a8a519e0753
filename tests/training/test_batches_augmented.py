"""The two halves of a batch: what is read, and what is made of it on the device."""

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.imaging import store
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.training import augment
from flarekd.training.augment import Draw
from flarekd.training.batches import Batches, ahead

STATISTICS = IntensityStatistics(100.5, 5000.0, 60.0, 800.0)
SHAPE = (10, 24, 28)


def settings(patch=(8, 16, 16), oversize=(8, 20, 22), **augmentation):
    student = config.load(config.builtin("quick")).student
    changes = {
        "batch": 4,
        "class_weights": (),
        "patch": patch,
        "oversize": oversize,
        "foreground": 0.5,
        "augmentation": student.augmentation.model_copy(update=augmentation),
    }
    return student.model_copy(update=changes)


@pytest.fixture
def volume():
    """Each voxel's intensity tells which it is."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:7, 6:14, 8:18] = 1
    labels[-1, -1, -1] = 2
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), labels


@pytest.fixture
def case(tmp_path, volume):
    path = tmp_path / "case.b2nd"
    store.write_case(path, *volume, spacing_zyx=(5.0, 2.0, 2.0), chunk_zyx=(8, 16, 16), key="k")
    return store.open_case(path)


def around(volume, patch):
    """What the normalised, zero-padded case holds where a patch was taken from."""
    voxel = tuple(np.argwhere((patch > 1) & (patch < 6))[0])
    index = round(float(patch[voxel]) * 800 + 60)
    place = np.array(np.unravel_index(index, SHAPE)) - voxel + 20
    image, labels = volume
    normal = (np.clip(image.astype(float), 100.5, 5000.0) - 60.0) / 800.0
    region = tuple(
        slice(start, start + size) for start, size in zip(place, patch.shape, strict=True)
    )
    return np.pad(normal, 20)[region], np.pad(labels, 20)[region]


NOTHING = dict.fromkeys(
    (
        "elastic", "rotation", "scaling", "noise", "blur", "brightness", "contrast",
        "low_resolution", "gamma_inverted", "gamma",
    ),
    0.0,
)  # fmt: skip


def test_an_unaugmented_sample_is_the_normalised_scan_with_its_labels(case, volume):
    make = Batches([case], settings(**NOTHING), STATISTICS, 5)
    reaches_out = 0
    for iteration in range(3):
        for patch, ids in zip(*make(iteration), strict=True):
            image, labels = around(volume, patch[0].numpy())
            np.testing.assert_allclose(patch[0], image, atol=1e-5)
            np.testing.assert_array_equal(ids, labels)
            reaches_out += not patch.all()
    assert reaches_out > 0


def test_only_what_moves_voxels_reads_the_oversized_region(case):
    make = Batches([case], settings(**NOTHING | {"rotation": 0.5}), STATISTICS, 5)
    regions = [region for iteration in range(10) for region in make.read(iteration)]
    shapes = {region.draw.is_spatial: region.shape for region in regions}
    assert shapes == {True: (8, 20, 22), False: (8, 16, 16)}
    for region in regions:
        assert region.hu.dtype == torch.int16
        assert region.hu.shape == region.labels.shape
        assert region.hu.shape == tuple(part.stop - part.start for part in region.inside)


def test_a_batch_is_what_was_read_normalised_and_augmented(case):
    make = Batches([case], settings(rotation=0.5, gamma=0.9), STATISTICS, 5)
    raw = make.read(3)
    images, target = make.augment(raw)
    assert images.shape == (4, 1, 8, 16, 16)
    assert target.dtype == torch.int64
    for region, image, ids in zip(raw, images, target, strict=True):
        whole = np.zeros(region.shape, np.float32)
        whole[region.inside] = STATISTICS.normalize(region.hu.numpy())
        labels = torch.zeros(region.shape, dtype=torch.uint8)
        labels[region.inside] = region.labels
        expected = augment.apply(
            torch.from_numpy(whole)[None], labels[None], [region.draw], (8, 16, 16)
        )
        torch.testing.assert_close(image, expected[0], atol=1e-5, rtol=0)
        assert torch.equal(ids, expected[1][0].long())
    again = make(3)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], target)
    assert any(region.draw != Draw() for region in raw)


def test_a_patch_of_one_slice_has_no_slice_axis(case):
    make = Batches([case], settings((1, 16, 16), (1, 20, 20)), STATISTICS, 5)
    images, target = make(0)
    assert images.shape == (4, 1, 16, 16)
    assert target.shape == (4, 16, 16)


def test_reading_ahead_and_augmenting_after_gives_the_same_batches(case):
    make = Batches([case], settings(), STATISTICS, 5)
    whole = [batch for batch, _ in ahead(make, 0, 4, 2)]
    halves = [make.augment(raw) for raw, _ in ahead(make.read, 0, 4, 2)]
    for one, two in zip(whole, halves, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_for_a_gpu_are_those_for_the_cpu(case):
    cpu = Batches([case], settings(), STATISTICS, 5)
    gpu = Batches([case], settings(), STATISTICS, 5, torch.device("cuda"))
    assert gpu.read(0)[0].hu.is_pinned()
    for (images, target), _ in ahead(gpu, 0, 2, 2):
        assert images.is_cuda
        assert target.is_cuda
    torch.testing.assert_close(gpu(1)[0].cpu(), cpu(1)[0], atol=1e-2, rtol=0)
