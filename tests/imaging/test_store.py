from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from flarekd.errors import InputError
from flarekd.imaging.store import is_current, open_case, verify, write_case
from flarekd.imaging.volume import Geometry

SHAPE = (20, 33, 41)
SPACING = (4.0, 1.2, 1.3)


@pytest.fixture
def arrays():
    generator = np.random.default_rng(5)
    image = generator.integers(-1024, 2000, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:18, 3:30, 4:36] = 1
    labels[5:8, 10:12, 20:23] = 14
    return image, labels


@pytest.fixture
def stored(tmp_path, arrays):
    path = tmp_path / "FLARE23_0001.b2nd"
    write_case(path, *arrays, spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="abc")
    return path


def test_what_is_written_is_read(stored, arrays):
    case = open_case(stored)
    assert case.case == "FLARE23_0001"
    assert case.shape_zyx == SHAPE
    assert case.spacing_zyx == SPACING
    assert case.key == "abc"
    assert case.classes == (1, 14)
    image, labels = case.read((slice(3, 15), slice(0, 33), slice(30, 41)))
    assert (image.dtype, labels.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(image, arrays[0][3:15, :, 30:41])
    np.testing.assert_array_equal(labels, arrays[1][3:15, :, 30:41])


def test_nothing_is_left_beside_the_case(stored):
    assert list(stored.parent.iterdir()) == [stored]


def test_all_voxels_of_a_small_class_are_located(stored, arrays):
    found = open_case(stored).locations(14)
    np.testing.assert_array_equal(found, np.argwhere(arrays[1] == 14))


@pytest.mark.parametrize(("extent", "count"), [(25, 10_000), (110, 13_310)])
def test_large_classes_are_sampled_to_ten_thousand_but_at_least_one_percent(
    tmp_path, extent, count
):
    labels = np.full((extent, extent, extent), 3, np.uint8)
    path = tmp_path / "a.b2nd"
    image = np.zeros(labels.shape, np.int16)
    write_case(path, image, labels, spacing_zyx=SPACING, chunk_zyx=(32, 64, 64), key="")
    found = open_case(path).locations(3)
    assert found.shape == (count, 3)
    assert len({tuple(voxel) for voxel in found.tolist()}) == count
    # spread over the whole class
    np.testing.assert_allclose(found.mean(0), (extent - 1) / 2, atol=0.05 * extent)


def test_the_same_case_has_the_same_locations(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (40, 40, 40)).astype(np.uint8)
    image = np.zeros(labels.shape, np.int16)
    drawn = []
    for name in ("a.b2nd", "b.b2nd"):
        write_case(tmp_path / name, image, labels, spacing_zyx=SPACING, chunk_zyx=(8, 8, 8), key="")
        drawn.append(open_case(tmp_path / name).locations(1))
    np.testing.assert_array_equal(*drawn)
    assert (labels[tuple(drawn[0].T)] == 1).all()


def test_an_absent_class_has_no_locations(stored):
    with pytest.raises(ValueError, match="no voxel of class 5"):
        open_case(stored).locations(5)


def test_a_case_without_foreground_is_stored(tmp_path):
    image = np.full((4, 5, 6), -1024, np.int16)
    labels = np.zeros((4, 5, 6), np.uint8)
    path = tmp_path / "a.b2nd"
    write_case(path, image, labels, spacing_zyx=SPACING, chunk_zyx=(32, 64, 64), key="k")
    assert open_case(path).classes == ()
    assert is_current(path, "k")


def test_current_means_the_same_key(stored, tmp_path):
    assert verify(stored)
    assert is_current(stored, "abc")
    assert not is_current(stored, "xyz")
    assert not is_current(tmp_path / "gone.b2nd", "abc")


@pytest.mark.parametrize("shape", [(64, 250, 250), (30, 400, 400)])
def test_a_case_of_full_size_with_every_class_is_stored(tmp_path, shape):
    labels = np.random.default_rng(0).integers(0, 15, shape).astype(np.uint8)
    image = labels.astype(np.int16) * 10
    path = tmp_path / "a.b2nd"
    write_case(path, image, labels, spacing_zyx=SPACING, chunk_zyx=(32, 128, 192), key="k")
    case = open_case(path)
    assert case.classes == tuple(range(1, 15))
    for class_id in case.classes:
        voxels = case.locations(class_id)
        assert len(voxels) == max(10_000, -(-case.voxels[class_id] // 100))
        assert (labels[tuple(voxels.T)] == class_id).all()
    assert is_current(path, "k")


def test_what_was_counted_is_told_without_reading_voxels(stored, arrays, monkeypatch):
    image, labels = arrays
    case = open_case(stored)
    monkeypatch.setattr(case, "read", None)
    assert case.voxels == {1: int((labels == 1).sum()), 14: 18}
    sample = image[labels > 0][::10]
    values, counts = np.unique(sample, return_counts=True)
    found = case.intensities()
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.counts, counts)
    assert case.lesions_mm3 == pytest.approx((18 * 4.0 * 1.2 * 1.3,))
    np.testing.assert_array_equal(case.lesion_voxels(0), np.argwhere(labels == 14))
    assert (case.own_shape_zyx, case.own_spacing_zyx) == (SHAPE, SPACING)


def test_each_lesion_has_its_own_voxels(tmp_path, arrays):
    image, labels = arrays
    labels[12:15, 20:25, 5:15] = 7
    labels[3, 20, 30] = 7
    path, own = tmp_path / "a.b2nd", Geometry((50, 40, 30), (0.7, 0.8, 2.5))
    write_case(
        path,
        image,
        labels,
        spacing_zyx=(1.0, 1.0, 1.0),
        chunk_zyx=(8, 16, 64),
        key="",
        lesion_class=7,
        own=own,
    )
    case = open_case(path)
    assert case.lesions_mm3 == (1.0, 150.0)
    assert case.lesion_voxels(0).tolist() == [[3, 20, 30]]
    voxels = case.lesion_voxels(1)
    assert voxels.shape == (64, 3)
    assert (labels[tuple(voxels.T)] == 7).all()
    assert (voxels[:, 0] >= 12).all()
    assert (case.own_shape_zyx, case.own_spacing_zyx) == ((30, 40, 50), (2.5, 0.8, 0.7))


def test_a_file_that_was_cut_short_or_removed_while_open_is_told_not_a_crash(stored):
    case = open_case(stored)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:5000])
    for _ in range(2):
        with pytest.raises(InputError, match=r"FLARE23_0001\.b2nd: was changed or removed"):
            case.read((slice(0, 4),) * 3)
        with pytest.raises(InputError, match="was changed or removed"):
            case.locations(14)
        stored.unlink(missing_ok=True)


def test_a_case_that_is_replaced_while_open_is_read_as_it_was(stored, arrays):
    case = open_case(stored)
    write_case(stored, *arrays, spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="xyz")
    image, _ = case.read((slice(0, 20), slice(0, 33), slice(0, 41)))
    np.testing.assert_array_equal(image, arrays[0])


def test_the_hash_is_of_the_content_not_of_the_key_or_the_name(stored, arrays):
    other = stored.with_name("other.b2nd")
    write_case(other, *arrays, spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="later")
    assert open_case(other).sha256 == open_case(stored).sha256
    write_case(other, arrays[0] + 1, arrays[1], spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="")
    assert open_case(other).sha256 != open_case(stored).sha256


def test_open_cases_hold_no_open_files(stored):
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs Linux to count open files")
    before = open_files()
    cases = [open_case(stored) for _ in range(50)]
    for case in cases:
        case.read((slice(0, 4),) * 3)
    assert open_files() == before


@pytest.mark.parametrize("chunk", [(8, 16, 64), (1, 32, 32), (1, 512, 512), (32, 128, 192)])
def test_any_crop_of_any_chunk_is_the_array(tmp_path, arrays, chunk):
    path = tmp_path / "a.b2nd"
    write_case(path, *arrays, spacing_zyx=SPACING, chunk_zyx=chunk, key="")
    case = open_case(path)
    generator = np.random.default_rng(1)
    for _ in range(30):
        first = [int(generator.integers(0, size)) for size in SHAPE]
        last = [
            int(generator.integers(f + 1, size + 1)) for f, size in zip(first, SHAPE, strict=True)
        ]
        slices = tuple(slice(*ends) for ends in zip(first, last, strict=True))
        for found, array in zip(case.read(slices), arrays, strict=True):
            np.testing.assert_array_equal(found, array[slices])


def test_a_torn_file_is_never_taken_for_a_whole_one(stored):
    whole = stored.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 200)):
        stored.write_bytes(whole[:length])
        assert not is_current(stored, "abc")
        with pytest.raises(InputError, match=r"FLARE23_0001\.b2nd"):
            open_case(stored)


def test_a_turned_bit_is_found_or_changes_nothing(stored, arrays):
    whole = stored.read_bytes()
    generator = np.random.default_rng(0)
    unnoticed = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        stored.write_bytes(damaged)
        if is_current(stored, "abc"):
            unnoticed += 1
            image, labels = open_case(stored).read((slice(None),) * 3)
            np.testing.assert_array_equal(image, arrays[0])
            np.testing.assert_array_equal(labels, arrays[1])
    assert unnoticed < 10


def test_garbage_is_no_case(tmp_path):
    path = tmp_path / "a.b2nd"
    path.write_bytes(b"not a case at all, but long enough to have a header")
    assert not is_current(path, "")
    with pytest.raises(InputError, match=r"no stored case · delete it"):
        open_case(path)


def test_many_threads_read_one_case_and_many(stored, arrays, tmp_path):
    other = tmp_path / "other.b2nd"
    write_case(
        other, arrays[0] + 1, arrays[1], spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="abc"
    )
    cases = [open_case(stored), open_case(other)]
    wrong = []

    def work(seed):
        generator = np.random.default_rng(seed)
        for _ in range(40):
            which = int(generator.integers(2))
            start = generator.integers(0, 12, 3)
            slices = tuple(slice(int(first), int(first) + 8) for first in start)
            image, _ = cases[which].read(slices)
            if not np.array_equal(image, arrays[0][slices] + which):
                wrong.append((seed, slices))
            cases[which].locations(14)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_wrong_shapes_and_dtypes_are_refused_and_write_nothing(tmp_path, arrays):
    image, labels = arrays
    path = tmp_path / "a.b2nd"
    options = {"spacing_zyx": SPACING, "chunk_zyx": (8, 8, 8), "key": ""}
    with pytest.raises(ValueError, match=r"labels \(19, 33, 41\)"):
        write_case(path, image, labels[1:], **options)
    with pytest.raises(ValueError, match="not int16 and uint8"):
        write_case(path, image.astype(np.float32), labels, **options)
    assert list(tmp_path.iterdir()) == []


def test_ignored_voxels_are_kept_and_counted_and_are_no_class(tmp_path, arrays):
    image, labels = arrays
    labels[12:14] = 255
    path = tmp_path / "a.b2nd"
    write_case(path, image, labels, spacing_zyx=SPACING, chunk_zyx=(8, 16, 64), key="")
    case = open_case(path)
    assert case.ignored == 2 * 33 * 41
    assert case.classes == (1, 14)
    assert case.voxels[1] == (labels == 1).sum()
    np.testing.assert_array_equal(
        case.read((slice(11, 15), slice(0, 33), slice(0, 41)))[1], labels[11:15]
    )


def test_a_case_without_ignored_voxels_has_none(stored):
    assert open_case(stored).ignored == 0
