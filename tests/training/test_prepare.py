"""The training store: what a case becomes in it, when it is made again, and what is told of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from flarekd.errors import InputError
from flarekd.imaging import store
from flarekd.imaging.files import read_labels, read_volume, write_labels, write_volume
from flarekd.imaging.resampling import resample, resample_labels
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.training.fingerprint import take_fingerprint
from flarekd.training.prepare import Grid, Source, prepare, store_hash

# anisotropic, oblique (16° about z, y against the canonical axis), away from the origin
COS, SIN = np.cos(0.28), np.sin(0.28)
DIRECTION = (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
CHUNK = (8, 16, 16)
OWN = Grid((0.0, 0.0, 0.0), CHUNK, tumor_only=False)
COARSE = Grid((4.0, 1.5, 1.5), CHUNK, tumor_only=False)
TEACHER = Grid((0.0, 1.5, 1.5), (1, 16, 16), tumor_only=True)


pytestmark = pytest.mark.usefixtures("one_processor")


def source(folder, case, seed=0, geometry=GEOMETRY):
    """A scan of noise with a liver and a tumour in it, and its labels, in files."""
    labels = np.zeros(geometry.shape_zyx, np.uint8)
    labels[2:9, 5:17, 6:20] = 1
    labels[4:8, 8:14, 10:17] = 14
    noise = np.random.default_rng(seed).normal(0, 20, labels.shape)
    image = np.rint(-90 + noise + 150 * (labels == 1) + 100 * (labels == 14)).astype(np.int16)
    paths = folder / f"{case}_0000.nii.gz", folder / f"{case}.nii.gz"
    write_volume(paths[0], Volume(image, geometry))
    write_labels(paths[1], LabelMap(labels, geometry))
    return Source(case, *paths)


def make(folder, sources, grid):
    return prepare(sources, folder / "store", grid, 1, lambda *_: None)


def content(case):
    z, y, x = case.shape_zyx
    return case.read((slice(0, z), slice(0, y), slice(0, x)))


def test_a_case_at_its_own_spacing_is_stored_as_it_is(tmp_path):
    one = source(tmp_path, "case_a")
    (case,), failed = make(tmp_path, [one], OWN)
    assert (case.case, failed) == ("case_a", {})
    image, labels = content(case)
    np.testing.assert_array_equal(image, read_volume(one.image).array)
    np.testing.assert_array_equal(labels, read_labels(one.labels).array)
    assert case.spacing_zyx == pytest.approx((3.0, 1.25, 0.75))
    assert case.classes == (1, 14)


def test_a_case_is_resampled_to_the_grid_with_the_one_resampler(tmp_path):
    one = source(tmp_path, "case_a")
    (case,), _ = make(tmp_path, [one], COARSE)
    assert case.shape_zyx == (9, 20, 14)  # 12·3/4, 24·1.25/1.5, 28·0.75/1.5
    assert case.spacing_zyx == (4.0, 1.5, 1.5)
    image, labels = content(case)
    whole = resample(read_volume(one.image).array, case.shape_zyx)
    np.testing.assert_array_equal(image, np.rint(whole))
    expected = resample_labels(read_labels(one.labels).array, case.shape_zyx)
    np.testing.assert_array_equal(labels, expected)


def test_for_the_teacher_tumour_is_1_and_all_else_background_and_slices_stay(tmp_path):
    thick = Geometry((28, 24, 12), (0.75, 1.25, 5.0), (-31.0, 45.5, 112.0), DIRECTION)
    sources = [source(tmp_path, "case_a"), source(tmp_path, "case_b", geometry=thick)]
    cases, _ = make(tmp_path, sources, TEACHER)
    assert [case.shape_zyx for case in cases] == [(12, 20, 14), (12, 20, 14)]
    assert [case.spacing_zyx[0] for case in cases] == pytest.approx([3.0, 5.0])
    for case, one in zip(cases, sources, strict=True):
        assert case.classes == (1,)
        tumor = (read_labels(one.labels).array == 14).astype(np.uint8)
        np.testing.assert_array_equal(content(case)[1], resample_labels(tumor, case.shape_zyx))


def test_a_case_without_tumour_is_stored_as_background(tmp_path):
    one = source(tmp_path, "case_a")
    write_labels(one.labels, LabelMap(np.ones(GEOMETRY.shape_zyx, np.uint8), GEOMETRY))
    (case,), _ = make(tmp_path, [one], TEACHER)
    assert case.classes == ()
    assert not content(case)[1].any()


def test_of_partial_labels_organs_that_are_vouched_for_are_kept_and_tumours_left_open(tmp_path):
    one = source(tmp_path, "case_a")
    labels = read_labels(one.labels)
    labels.array[10:, :, :4] = 5  # drawn, but the cohort does not say so
    labels.array[10:, :, 8:12] = 3
    labels.array[0] = 255
    write_labels(one.labels, labels)
    partly = replace(one, annotated=frozenset({1, 3}))
    (case,), _ = make(tmp_path, [partly], OWN)
    expected = np.where(np.isin(labels.array, (1, 3)), labels.array, 0)
    expected[np.isin(labels.array, (14, 255))] = 255
    np.testing.assert_array_equal(content(case)[1], expected)
    assert case.classes == (1, 3)
    assert case.lesions_mm3 == ()


def test_other_organs_vouched_for_make_the_case_anew(tmp_path):
    one = source(tmp_path, "case_a")
    make(tmp_path, [replace(one, annotated=frozenset({1}))], OWN)
    before = times(tmp_path)
    make(tmp_path, [replace(one, annotated=frozenset({1}))], OWN)
    assert times(tmp_path) == before
    make(tmp_path, [replace(one, annotated=frozenset({1, 2}))], OWN)
    assert times(tmp_path) != before


def test_values_beyond_int16_are_clipped_not_wrapped(tmp_path):
    one = source(tmp_path, "case_a")
    image = np.full(GEOMETRY.shape_zyx, 40_000.25, np.float32)
    image[:6] = -40_000.25
    write_volume(one.image, Volume(image, GEOMETRY))
    (case,), _ = make(tmp_path, [one], OWN)
    stored = content(case)[0]
    assert (stored[:6] == -32768).all()
    assert (stored[6:] == 32767).all()


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "store").iterdir()}


def test_the_store_is_made_once(tmp_path):
    sources = [source(tmp_path, "case_a"), source(tmp_path, "case_b", 1)]
    told = []
    prepare(sources, tmp_path / "store", OWN, 1, lambda *state: told.append(state))
    assert told == [(0, 2, ""), (1, 2, "case_a"), (2, 2, "case_b")]
    before = times(tmp_path)
    assert set(before) == {"case_a.b2nd", "case_b.b2nd"}
    told.clear()
    cases, _ = prepare(sources, tmp_path / "store", OWN, 1, lambda *state: told.append(state))
    assert told == [(1, 2, "case_a"), (2, 2, "case_b"), (2, 2, "")]
    assert times(tmp_path) == before
    assert [case.case for case in cases] == ["case_a", "case_b"]


@pytest.mark.parametrize("part", ["image", "labels"])
def test_a_changed_file_remakes_its_case_alone(tmp_path, part):
    sources = [source(tmp_path, "case_a"), source(tmp_path, "case_b", 1)]
    make(tmp_path, sources, OWN)
    before = times(tmp_path)
    time.sleep(0.01)
    if part == "labels":
        write_labels(sources[1].labels, LabelMap(np.ones(GEOMETRY.shape_zyx, np.uint8), GEOMETRY))
    else:
        write_volume(sources[1].image, Volume(np.ones(GEOMETRY.shape_zyx, np.int16), GEOMETRY))
    (_, b), _ = make(tmp_path, sources, OWN)
    after = times(tmp_path)
    assert after["case_a.b2nd"] == before["case_a.b2nd"]
    assert after["case_b.b2nd"] > before["case_b.b2nd"]
    assert (content(b)[1 if part == "labels" else 0] == 1).all()


@pytest.mark.parametrize("grid", [COARSE, TEACHER, Grid((0.0, 0.0, 0.0), (4, 8, 8), False)])
def test_another_grid_remakes_the_store(tmp_path, grid):
    sources = [source(tmp_path, "case_a")]
    make(tmp_path, sources, OWN)
    before = times(tmp_path)
    time.sleep(0.01)
    make(tmp_path, sources, grid)
    assert times(tmp_path)["case_a.b2nd"] > before["case_a.b2nd"]


def test_a_damaged_case_is_made_again(tmp_path):
    sources = [source(tmp_path, "case_a")]
    make(tmp_path, sources, OWN)
    path = tmp_path / "store" / "case_a.b2nd"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    (case,), failed = make(tmp_path, sources, OWN)
    assert failed == {}
    np.testing.assert_array_equal(content(case)[0], read_volume(sources[0].image).array)


def test_bad_cases_are_named_with_their_reason_and_the_others_are_stored(tmp_path):
    sources = [source(tmp_path, f"case_{name}") for name in "abcd"]
    shifted = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 116.0), DIRECTION)
    empty = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    write_labels(sources[0].labels, LabelMap(empty, shifted))
    sources[1].image.write_bytes(sources[1].image.read_bytes()[:-100])
    sources[2].labels.unlink()
    cases, failed = make(tmp_path, sources, OWN)
    assert [case.case for case in cases] == ["case_d"]
    assert sorted(failed) == ["case_a", "case_b", "case_c"]
    assert "case_a.nii.gz: label and image do not match: " in failed["case_a"]
    assert "4.00 mm off · draw or export it again" in failed["case_a"]
    assert "case_b_0000.nii.gz" in failed["case_b"]
    assert "case_c.nii.gz" in failed["case_c"]
    assert sorted(times(tmp_path)) == ["case_d.b2nd"]


def test_what_is_doubtful_is_told_and_ids_that_are_no_class_are_refused(tmp_path):
    sources = [source(tmp_path, f"case_{name}") for name in "ab"]
    picture = np.resize(np.arange(200, dtype=np.int16), GEOMETRY.shape_zyx)
    write_volume(sources[0].image, Volume(picture, GEOMETRY))
    ids = read_labels(sources[1].labels).array.copy()
    ids[0, 0, 0] = 15
    write_labels(sources[1].labels, LabelMap(ids, GEOMETRY))
    told = []
    _, failed = prepare(sources, tmp_path / "store", OWN, 1, lambda *_: None, say=told.append)
    assert "label ids [15] are not among 0..14" in failed["case_b"]
    (note,) = [line for line in told if line.startswith("note: ")]
    assert "does not look like CT in Hounsfield units" in note
    assert str(sources[0].image) in note


def test_a_case_that_became_bad_is_not_trained_on_as_it_was(tmp_path):
    sources = [source(tmp_path, "case_a"), source(tmp_path, "case_b")]
    make(tmp_path, sources, OWN)
    sources[0].labels.write_bytes(b"")
    cases, failed = make(tmp_path, sources, OWN)
    assert [case.case for case in cases] == ["case_b"]
    assert list(failed) == ["case_a"]


def stored(folder, case, image, labels):
    path = folder / f"{case}.b2nd"
    store.write_case(path, image, labels, spacing_zyx=(3.0, 1.0, 1.0), chunk_zyx=CHUNK, key="k")
    return store.open_case(path)


def test_the_hash_depends_on_names_and_contents_and_not_on_the_order(tmp_path):
    image = np.zeros((4, 8, 8), np.int16)
    labels = np.zeros((4, 8, 8), np.uint8)
    a, b = stored(tmp_path, "a", image, labels), stored(tmp_path, "b", image + 1, labels)
    renamed = stored(tmp_path / "other", "c", image + 1, labels)
    changed = stored(tmp_path / "other", "b", image + 2, labels)
    hashes = [store_hash(cases) for cases in ([a, b], [b, a], [a, renamed], [a, changed], [a])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert all(len(value) == 64 for value in hashes)


def test_an_unreadable_store_is_an_error_not_an_empty_case(tmp_path):
    with pytest.raises(InputError, match="no such case"):
        store.open_case(tmp_path / "none.b2nd")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_stored(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5000))
    said = []
    with pytest.raises(InputError, match=r"needs about .* free · make room") as caught:
        prepare(
            [source(tmp_path, "case_a")],
            tmp_path / "store",
            OWN,
            1,
            lambda *_: None,
            say=said.append,
        )
    assert caught.value.exit_code == 3
    assert list((tmp_path / "store").iterdir()) == []
    assert said == ["training store: 1 case, about 0.0 MB of 0.0 MB free, about 1 s with 1 process"]


def test_what_is_there_already_costs_nothing(tmp_path):
    sources = [source(tmp_path, "case_a"), source(tmp_path, "case_b", 1)]
    said = []
    for expected in ("2 cases", None, "1 case"):
        said.clear()
        prepare(sources, tmp_path / "store", OWN, 1, lambda *_: None, say=said.append)
        assert len(said) == (expected is not None)
        assert not said or f"training store: {expected}, about" in said[0]
        if expected is None:
            time.sleep(0.01)
            write_labels(
                sources[1].labels, LabelMap(np.ones(GEOMETRY.shape_zyx, np.uint8), GEOMETRY)
            )


def test_the_time_left_is_told_again_when_the_first_cases_are_done(tmp_path):
    one = source(tmp_path, "case_a")
    sources = [Source(f"case_{index}", one.image, one.labels) for index in range(20)]
    said = []
    prepare(sources, tmp_path / "store", OWN, 1, lambda *_: None, say=said.append)
    assert len(said) == 2
    assert said[1].startswith("training store: about ")
    assert said[1].endswith(" s left, going by the first cases")


def test_store_and_fingerprint_are_the_same_whatever_the_number_of_processes(tmp_path):
    sources = [source(tmp_path, f"case_{name}", seed) for seed, name in enumerate("abc")]
    files, fingerprints = [], []
    for jobs in (1, 2):
        folder = tmp_path / f"store_{jobs}"
        cases, _ = prepare(sources, folder, COARSE, jobs, lambda *_: None)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
        fingerprints.append(take_fingerprint(cases))
    assert files[0] == files[1]
    assert len(files[0]) == 3
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize("tumor_only", [False, True])
def test_what_is_to_be_ignored_stays_so_in_the_store(tmp_path, tumor_only):
    one = source(tmp_path, "a")
    labels = read_labels(one.labels)
    labels.array[5] = 255
    write_labels(one.labels, labels)
    grid = Grid((0.0, 0.0, 0.0), (8, 16, 16), tumor_only=tumor_only)
    (case,), _ = make(tmp_path / "store", [one], grid)
    assert case.ignored == labels.array[5].size
    assert (content(case)[1][5] == 255).all()
