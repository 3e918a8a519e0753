"""Lesions one by one: found, missed, made up, by size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flarekd.metrics.lesions import Lesion, detection, find_lesions, size_names

SPACING = (2.0, 1.0, 1.0)


def tumors(*boxes):
    labels = np.zeros((20, 30, 30), np.uint8)
    labels[0, 0, 0] = 1
    for z, y, x in boxes:
        labels[z : z + 3, y : y + 5, x : x + 5] = 14
    return labels


def test_a_lesion_is_found_by_a_single_voxel_and_a_part_beside_all_is_false():
    reference = tumors((1, 1, 1), (10, 10, 10), (15, 24, 24))
    prediction = tumors((1, 1, 1), (15, 2, 24))
    prediction[12, 14, 14] = 14  # the corner of the second
    found = find_lesions(prediction, reference, SPACING)
    drawn = [lesion for lesion in found if lesion.is_reference]
    made = [lesion for lesion in found if not lesion.is_reference]
    assert [lesion.covered for lesion in drawn] == [1, 1 / 75, 0]
    assert [lesion.is_found for lesion in drawn] == [True, True, False]
    assert [lesion.volume_ml for lesion in drawn] == pytest.approx([0.15] * 3)
    assert not any(lesion.is_false_positive for lesion in drawn)
    # largest first: two boxes and a voxel
    assert [lesion.covered for lesion in made] == [1, 0, 1]
    assert [lesion.is_false_positive for lesion in made] == [False, True, False]
    assert made[2].volume_ml == pytest.approx(0.002)


def test_two_lesions_under_one_prediction_are_both_found():
    reference = tumors((1, 1, 1), (1, 1, 8))
    prediction = reference.copy()
    prediction[2, 3, 4:9] = 14
    found = find_lesions(prediction, reference, SPACING)
    assert [lesion.is_found for lesion in found] == [True, True, True]
    assert found[2].covered == 150 / 152


def test_voxels_that_share_a_corner_are_one_lesion():
    reference = np.zeros((4, 4, 4), np.uint8)
    reference[1, 1, 1] = reference[2, 2, 2] = 14
    assert len(find_lesions(np.zeros_like(reference), reference, SPACING)) == 1


def test_maps_without_a_tumor_have_no_lesions_and_shapes_must_agree():
    empty = np.zeros((3, 4, 5), np.uint8)
    assert find_lesions(empty, empty, SPACING) == []
    with pytest.raises(ValueError, match=r"\(3, 4, 5\) and \(2, 4, 5\)"):
        find_lesions(empty, empty[1:], SPACING)


def ball_ml(diameter_mm):
    return math.pi / 6 * diameter_mm**3 / 1000


def test_the_diameter_is_that_of_a_ball_of_the_same_volume():
    assert Lesion(True, ball_ml(23.0), 0).diameter_mm == pytest.approx(23)


def test_sensitivity_is_of_lesions_and_false_positives_are_counted_a_case():
    def drawn(diameter_mm, covered):
        return Lesion(True, ball_ml(diameter_mm), covered)

    def made(diameter_mm, covered):
        return Lesion(False, ball_ml(diameter_mm), covered)

    cases = {
        "a": [drawn(60, 0.9), drawn(9, 0), made(58, 0.8)],
        "b": [drawn(15, 0.1), drawn(12, 0), made(3, 0), made(4, 0), made(12, 0.5)],
        "c": [],
        "d": [made(20.001, 0)],
    }
    found = detection(cases)
    sizes = found.pop("sizes")
    assert found == {
        "lesions": 4, "found": 2, "sensitivity": 0.5,
        "false_positives": 3, "false_positives_per_case": 0.75,
    }  # fmt: skip
    assert list(sizes) == size_names()
    assert size_names() == ["under 10 mm", "10 to 20 mm", "20 to 50 mm", "from 50 mm"]
    assert [part["lesions"] for part in sizes.values()] == [1, 2, 0, 1]
    assert [part["sensitivity"] for part in sizes.values()] == pytest.approx(
        [0, 0.5, math.nan, 1], nan_ok=True
    )
    assert [part["false_positives_per_case"] for part in sizes.values()] == [0.5, 0, 0.25, 0]


def test_no_case_has_no_rates():
    assert math.isnan(detection({})["sensitivity"])
    assert math.isnan(detection({})["false_positives_per_case"])
