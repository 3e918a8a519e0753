"""Small boxes in a small scan, of which everything is known."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from flarekd.appearance import REACH_MM, look, restore

SPACING = (4.0, 2.0, 2.0)
SHAPE = (20, 40, 50)


@pytest.fixture
def scan():
    """A liver of 60 HU in fat of -100 HU, with noise of ±10."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:14, 10:30, 2:22] = 1
    hu = np.full(SHAPE, -100, np.int16)
    hu[labels == 1] = 60
    hu[:, ::2] += 10
    hu[:, 1::2] -= 10
    return labels, hu


def test_an_organ_has_the_mean_and_the_spread_of_what_it_holds(scan):
    labels, hu = scan
    found = look(labels, hu, SPACING)
    assert found.looks["liver"].mean_hu == 60
    assert found.looks["liver"].sd_hu == 10
    assert found.height_mm == 80
    assert found.extents["liver"].ml == pytest.approx(10 * 20 * 20 * 16 / 1000)
    assert found.masses == ()
    assert (found.parts, found.swapped, found.pieces) == (0, (), {})


def test_a_map_that_lies_off_its_scan_takes_in_what_is_beside(scan):
    labels, hu = scan
    found = look(np.roll(labels, 5, axis=2), hu, SPACING)
    # a quarter of it is fat: 160 HU of difference, p = ¼
    assert found.looks["liver"].mean_hu == 20
    assert found.looks["liver"].sd_hu == pytest.approx(np.hypot(160 * np.sqrt(3) / 4, 10), abs=0.01)


def test_a_tumour_is_told_from_what_surrounds_it(scan):
    labels, hu = scan
    box = np.s_[7:11, 16:24, 8:16]
    labels[box] = 14
    hu[box] -= 40
    (mass,) = look(labels, hu, SPACING).masses
    assert mass.mean_hu == 20
    assert mass.contrast == pytest.approx(4.0)  # 40 HU over a noise of 10
    assert (mass.organ, mass.organ_mm) == ("liver", 0.0)


def test_a_tumour_without_a_border_has_no_contrast(scan):
    labels, hu = scan
    labels[7:11, 16:24, 8:16] = 14
    (mass,) = look(labels, hu, SPACING).masses
    assert mass.contrast == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("first", "distance"), [(26, 10.0), (31, 20.0)])
def test_the_distance_to_the_nearest_organ_is_in_millimetres(scan, first, distance):
    labels, hu = scan
    labels[8:10, 18:22, first : first + 4] = 14
    (mass,) = look(labels, hu, SPACING).masses
    assert mass.organ == "none"
    assert mass.organ_mm == pytest.approx(distance)


def test_far_from_every_organ_the_distance_ends_at_the_reach():
    labels = np.zeros((4, 40, 60), np.uint8)
    labels[1:3, 10:20, 2:5], labels[1:3, 10:20, 50:55] = 1, 14
    (mass,) = look(labels, np.zeros(labels.shape, np.int16), SPACING).masses
    assert mass.organ_mm == REACH_MM


def test_sides_and_pieces_are_told(scan):
    labels, hu = scan
    labels[4:8, 2:8, 30:40], labels[4:8, 2:8, 2:12] = 2, 13
    labels[16:20, 10:30, 2:22] = 1
    found = look(labels, hu, SPACING)
    assert found.swapped == ("right_kidney/left_kidney",)
    assert list(found.pieces) == ["liver"]


def test_what_is_no_class_is_passed_over(scan):
    labels, hu = scan
    labels[0, :5, :5] = 255
    assert set(look(labels, hu, SPACING).extents) == {"liver"}


def test_it_survives_its_way_through_json(scan):
    labels, hu = scan
    labels[7:11, 16:24, 0:16] = 14
    found = look(labels, hu, SPACING)
    assert restore(json.loads(json.dumps(asdict(found)))) == found
