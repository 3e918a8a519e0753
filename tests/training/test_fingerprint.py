"""A cohort in numbers: those of the raw arrays, learned in the one pass that makes the store."""

from __future__ import annotations

import numpy as np
import pytest

from flarekd.imaging import store
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.training import prepare as prepare_module
from flarekd.training.fingerprint import intensity_statistics, take_fingerprint
from flarekd.training.prepare import Grid, Source, prepare

pytestmark = pytest.mark.usefixtures("one_processor")

OWN = Grid((0.0, 0.0, 0.0), (8, 16, 16), tumor_only=False)
SIZES = ((28, 24, 12), (30, 26, 20), (33, 40, 15))  # x, y, z
SPACINGS = ((0.75, 1.25, 3.0), (0.8, 0.9, 2.5), (1.0, 1.0, 5.0))


def arrays(index):
    """A noisy scan; tumour in the second only."""
    labels = np.zeros(SIZES[index][::-1], np.uint8)
    labels[2:9, 5:17, 6:20] = 1
    if index == 1:
        labels[4:8, 8:14, 10:17] = 14
    noise = np.random.default_rng(index).normal(10 * index, 40, labels.shape)
    return np.rint(noise).astype(np.int16), labels


@pytest.fixture
def sources(tmp_path):
    found = []
    for index, (size, spacing) in enumerate(zip(SIZES, SPACINGS, strict=True)):
        geometry = Geometry(size, spacing, (-31.0, 45.5, 112.0))
        image, labels = arrays(index)
        paths = tmp_path / f"case_{index}_0000.nii.gz", tmp_path / f"case_{index}.nii.gz"
        write_volume(paths[0], Volume(image, geometry))
        write_labels(paths[1], LabelMap(labels, geometry))
        found.append(Source(f"case_{index}", *paths))
    return found


def make(sources, folder):
    return prepare(sources, folder, OWN, 1, lambda *_: None)[0]


def test_a_fingerprint_is_that_of_the_raw_arrays(sources, tmp_path):
    found = take_fingerprint(make(sources, tmp_path / "store"))
    assert found.cases == 3
    spacings, sizes = np.array(SPACINGS)[:, ::-1], np.array(SIZES)[:, ::-1]
    facts = (found.spacing_mm, spacings), (found.size, sizes), (found.extent_mm, sizes * spacings)
    for spread, values in facts:
        assert spread.p5 == pytest.approx(np.percentile(values, 5, axis=0))
        assert spread.median == pytest.approx(np.median(values, axis=0))
        assert spread.p95 == pytest.approx(np.percentile(values, 95, axis=0))
    labels = [arrays(index)[1] for index in range(3)]
    assert {class_id: (facts.cases, facts.voxels) for class_id, facts in found.classes.items()} == {
        1: (3, sum(int((one == 1).sum()) for one in labels)),
        14: (1, 4 * 6 * 7),
    }
    pooled = np.concatenate([image[ids > 0][::10] for image, ids in map(arrays, range(3))]).astype(
        np.float64
    )
    intensity = found.intensity
    assert intensity.voxels == pooled.size
    assert (intensity.p0_5, intensity.median, intensity.p99_5) == pytest.approx(
        np.percentile(pooled, (0.5, 50, 99.5))
    )
    assert (intensity.mean, intensity.sd) == pytest.approx((pooled.mean(), pooled.std()))


def test_it_survives_json(sources, tmp_path):
    found = take_fingerprint(make(sources, tmp_path / "store"))
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_it_does_not_depend_on_the_order(sources, tmp_path):
    """Nor on processes: tests/training/test_prepare.py."""
    forwards = take_fingerprint(make(sources, tmp_path / "store"))
    assert forwards == take_fingerprint(make(sources[::-1], tmp_path / "store"))


def test_each_file_is_read_once_and_a_finished_store_not_at_all(sources, tmp_path, monkeypatch):
    read = []

    def counting(real):
        return lambda path: read.append(path.name) or real(path)

    for name in ("read_volume", "read_labels"):
        monkeypatch.setattr(prepare_module, name, counting(getattr(prepare_module, name)))
    monkeypatch.setattr(store.StoredCase, "read", lambda *_: pytest.fail("voxels were read again"))
    first = take_fingerprint(make(sources, tmp_path / "store"))
    assert sorted(read) == sorted(
        path.name for source in sources for path in (source.image, source.labels)
    )
    read.clear()
    cases = make(sources, tmp_path / "store")
    assert (take_fingerprint(cases), read) == (first, [])
    intensity_statistics(cases)
    assert read == []


def stored(folder, case, image, labels):
    path = folder / f"{case}.b2nd"
    store.write_case(
        path, image, labels, spacing_zyx=(3.0, 1.0, 1.0), chunk_zyx=(8, 16, 16), key="k"
    )
    return store.open_case(path)


def test_statistics_are_those_of_the_foreground(tmp_path):
    rng = np.random.default_rng(0)
    samples, cases = [], []
    for index in range(2):
        labels = np.zeros((20, 40, 40), np.uint8)
        labels[5:15, 4:36, 4:36] = 3
        image = np.full(labels.shape, -1000, np.int16)
        count = np.count_nonzero(labels)
        image[labels > 0] = rng.normal(60 + 20 * index, 30, count).astype(np.int16)
        samples.append(image[labels > 0][::10])
        cases.append(stored(tmp_path, f"case_{index}", image, labels))
    pooled = np.concatenate(samples).astype(np.float64)
    found = intensity_statistics(cases)
    assert (found.lower, found.upper) == pytest.approx(np.percentile(pooled, (0.5, 99.5)))
    assert (found.mean, found.sd) == pytest.approx((pooled.mean(), pooled.std()))
    assert 60 < found.mean < 80
    within = intensity_statistics(cases, (0.0, 100.0))
    clipped = np.clip(pooled, 0, 100)
    assert (within.lower, within.upper) == (0.0, 100.0)
    assert (within.mean, within.sd) == pytest.approx((clipped.mean(), clipped.std()))


def test_too_little_foreground_falls_back_to_flare22s_statistics(tmp_path):
    image = np.full((20, 40, 40), 55, np.int16)
    labels = np.zeros(image.shape, np.uint8)
    labels[8:12, 10:20, 10:20] = 14
    assert intensity_statistics([stored(tmp_path, "a", image, labels)]) == FLARE22_STATISTICS
    empty = stored(tmp_path, "b", image, np.zeros_like(labels))
    assert intensity_statistics([empty]) == FLARE22_STATISTICS
    found = take_fingerprint([empty])
    assert (found.classes, found.intensity) == ({}, None)
