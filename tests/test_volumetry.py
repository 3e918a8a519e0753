"""Volumes, HU, cut-off flags and tumours of shapes whose answers are known on paper."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from flarekd import volumetry
from flarekd.volumetry import MOST_TUMORS, measure

SHAPE = (12, 14, 16)
SPACING = (5.0, 0.8, 0.5)
NAMES = {1: "liver", 2: "right_kidney", 6: "ivc", 14: "tumor"}


@pytest.fixture
def labels():
    return np.zeros(SHAPE, np.uint8)


@pytest.fixture
def hu():
    return np.full(SHAPE, -100, np.int16)


def of(statistics, label):
    (found,) = [entry for entry in statistics.classes if entry.label == label]
    return found


def test_volume_and_hu_of_a_box(labels, hu):
    labels[2:4, 3:8, 4:8] = 1
    hu[2, 3:8, 4:8] = 50
    hu[3, 3:8, 4:8] = 70
    found = of(measure(labels, hu, SPACING, NAMES), 1)
    assert found.name == "liver"
    assert found.voxels == 40
    assert found.volume_ml == pytest.approx(40 * 5.0 * 0.8 * 0.5 / 1000)
    assert found.mean_hu == 60.0
    assert found.sd_hu == 10.0
    assert found.cut_off == ()


def test_a_large_sum_of_int16_does_not_overflow(labels, hu):
    labels[:] = 1
    hu[:] = 3000
    assert of(measure(labels, hu, SPACING, NAMES), 1).mean_hu == 3000.0


def test_empty_classes_are_listed_and_ids_without_a_name_are_not(labels, hu):
    labels[0, 0, 0] = 9
    statistics = measure(labels, hu, SPACING, NAMES)
    assert [entry.label for entry in statistics.classes] == [1, 2, 6, 14]
    assert all(
        (e.voxels, e.volume_ml, e.mean_hu, e.sd_hu, e.cut_off) == (0, 0.0, None, None, ())
        for e in statistics.classes
    )
    assert statistics.tumors == ()
    assert measure(labels, hu, SPACING, {}).classes == ()


@pytest.mark.parametrize(
    ("index", "faces"),
    [
        ((0, 5, 5), ("feet",)),
        ((11, 5, 5), ("head",)),
        ((5, 0, 5), ("front",)),
        ((5, 13, 5), ("back",)),
        ((5, 5, 0), ("right",)),
        ((5, 5, 15), ("left",)),
        ((11, 0, 15), ("head", "front", "left")),
        ((1, 1, 1), ()),
        ((10, 12, 14), ()),
    ],
)
def test_what_touches_a_face_of_the_scan_is_cut_off(labels, hu, index, faces):
    labels[index] = 2
    assert of(measure(labels, hu, SPACING, NAMES), 2).cut_off == faces


def test_an_organ_over_all_of_a_single_slice_is_cut_off_everywhere():
    labels, hu = np.ones((1, 4, 5), np.uint8), np.zeros((1, 4, 5), np.int16)
    expected = ("feet", "head", "front", "back", "right", "left")
    assert of(measure(labels, hu, SPACING, NAMES), 1).cut_off == expected


@pytest.mark.parametrize("step", [(0, 0, 1), (0, -1, 0), (0, 1, -1), (0, 0, 0)])
def test_what_touches_padding_in_its_slice_is_cut_off_by_the_scanners_circle(labels, hu, step):
    labels[5, 6:8, 6:8] = labels[5, 6, 7] = 2
    hu[tuple(np.add((5, 7 if step[1] > 0 else 6, 7 if step[2] > 0 else 6), step))] = -2048
    assert of(measure(labels, hu, SPACING, NAMES), 2).cut_off == ("circle",)


@pytest.mark.parametrize("place", [(4, 6, 6), (5, 6, 9), (5, 4, 6)])
def test_padding_in_another_slice_or_farther_off_cuts_nothing(labels, hu, place):
    labels[5, 6:8, 6:8] = 2
    hu[place] = -3024
    hu[5, 5, 5] = -1024  # air is no padding
    assert of(measure(labels, hu, SPACING, NAMES), 2).cut_off == ()


def test_tumors_come_largest_first_with_their_measures(labels, hu):
    labels[2:10, 2:12, 2:14] = 1
    labels[4, 5, 6] = 14
    labels[7:9, 4:7, 5:9] = 14
    hu[7:9, 4:7, 5:9] = 35
    large, small = measure(labels, hu, SPACING, NAMES).tumors
    assert (large.number, small.number) == (1, 2)
    assert (large.voxels, small.voxels) == (24, 1)
    assert large.volume_ml == pytest.approx(24 * 2.0 / 1000)
    assert large.diameter_mm == pytest.approx(np.sqrt(5.0**2 + 1.6**2 + 1.5**2))
    assert small.diameter_mm == 0.0
    assert large.mean_hu == 35.0
    assert small.mean_hu == -100.0
    assert large.centroid_zyx == (7.5, 5.0, 6.5)
    assert small.centroid_zyx == (4.0, 5.0, 6.0)
    assert large.centroid_mm is None
    assert (large.organ, small.organ) == ("liver", "liver")
    assert small.contact == {"liver": 1.0}
    assert of(measure(labels, hu, SPACING, NAMES), 14).voxels == 25


def test_shares_of_the_shell_say_which_organ_a_tumor_lies_in(labels, hu):
    labels[5, 5, 5] = 14
    labels[4, 4:7, 4:7] = 1  # 9 of the 26 neighbours
    labels[6, 4:7, 4:6] = 6  # 6 of them
    labels[9, 9, 9] = 2  # far off
    (tumor,) = measure(labels, hu, SPACING, NAMES).tumors
    assert tumor.organ == "liver"
    assert tumor.contact == {"liver": pytest.approx(9 / 26), "ivc": pytest.approx(6 / 26)}
    assert list(tumor.contact) == ["liver", "ivc"]


def test_a_tumor_in_the_corner_of_the_scan_has_the_shell_that_is_there(labels, hu):
    labels[0, 0, 0] = 14
    labels[0, 0, 1] = 2
    (tumor,) = measure(labels, hu, SPACING, NAMES).tumors
    assert tumor.contact == {"right_kidney": pytest.approx(1 / 7)}
    assert tumor.cut_off == ("feet", "front", "right")


def test_a_tumor_that_touches_nothing_lies_in_none(labels, hu):
    labels[5, 5, 5] = 14
    (tumor,) = measure(labels, hu, SPACING, NAMES).tumors
    assert tumor.organ == "none"
    assert tumor.contact == {}
    whole = np.full((1, 1, 1), 14, np.uint8)  # no shell at all
    (tumor,) = measure(whole, np.zeros((1, 1, 1), np.int16), SPACING, NAMES).tumors
    assert (tumor.organ, tumor.diameter_mm) == ("none", 0.0)


def test_an_affine_places_the_centroid_in_the_patient(labels, hu):
    labels[4:6, 5, 6] = 14
    affine = np.array([[0.0, 0.0, 0.5, -10.0], [0.0, 0.8, 0.0, 20.0], [5.0, 0.0, 0.0, 300.0]])
    (tumor,) = measure(labels, hu, SPACING, NAMES, affine=affine).tumors
    assert tumor.centroid_mm == pytest.approx((-7.0, 24.0, 322.5))


def test_the_name_says_which_id_is_the_tumor(labels, hu):
    labels[5, 5, 5] = 2
    labels[6, 5, 5] = 14
    statistics = measure(labels, hu, SPACING, {1: "liver", 2: "tumor"})
    assert [tumor.voxels for tumor in statistics.tumors] == [1]
    assert measure(labels, hu, SPACING, {2: "right_kidney", 14: "rib"}).tumors == ()


def test_what_does_not_belong_together_is_refused(labels, hu):
    with pytest.raises(ValueError, match=r"labels are \(12, 14, 16\), the scan \(11, 14, 16\)"):
        measure(labels, hu[1:], SPACING, NAMES)
    with pytest.raises(ValueError, match="not uint8"):
        measure(labels.astype(np.int32), hu, SPACING, NAMES)
    with pytest.raises(ValueError, match="spacing"):
        measure(labels, hu, (0.0, 1.0, 1.0), NAMES)


def test_noise_takes_little_memory_and_its_largest_parts_are_measured():
    generator = np.random.default_rng(0)
    shape = (24, 256, 256)
    noise = generator.integers(0, 15, shape, dtype=np.uint8)
    scan = generator.integers(-1000, 400, shape, dtype=np.int16)
    names = {label: f"class {label}" for label in range(1, 14)} | {14: "tumor"}
    tracemalloc.start()
    found = measure(noise, scan, SPACING, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * noise.size + 8e6
    parts, count = ndimage.label(noise == 14, np.ones((3, 3, 3)))
    assert found.parts == count
    largest = np.sort(np.bincount(parts.ravel())[1:])[::-1][:MOST_TUMORS]
    assert [tumor.voxels for tumor in found.tumors] == largest.tolist()
    inside = scan[noise == 3]
    assert of(found, 3).mean_hu == pytest.approx(inside.mean())
    assert of(found, 3).sd_hu == pytest.approx(inside.std())


def test_what_is_measured_does_not_depend_on_the_pieces_it_is_measured_in(monkeypatch):
    generator = np.random.default_rng(1)
    labels = (generator.random((9, 10, 11)) < 0.4).astype(np.uint8) * 14
    labels[labels == 0] = generator.integers(1, 3, np.count_nonzero(labels == 0))
    scan = generator.integers(-1600, 400, labels.shape, dtype=np.int16)
    at_once = measure(labels, scan, SPACING, NAMES)
    monkeypatch.setattr(volumetry, "_PIECE_VOXELS", 1)
    by_planes = measure(labels, scan, SPACING, NAMES)
    for first, second in zip(at_once.classes, by_planes.classes, strict=True):
        assert (first.voxels, first.mean_hu, first.cut_off) == (
            second.voxels,
            second.mean_hu,
            second.cut_off,
        )
        assert first.sd_hu == pytest.approx(second.sd_hu)
    assert at_once.tumors == by_planes.tumors
