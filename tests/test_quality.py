"""Figures of pseudo-labels, worked out by hand or by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from flarekd.quality import Evidence, dice, distances, judge, round_uncertainty
from flarekd.selection import CASE_FIGURES, COMPONENT_FIGURES

SHAPE = (8, 12, 14)
SPACING = (5.0, 2.0, 1.0)  # 0.01 ml a voxel
LARGE = (slice(2, 5), slice(3, 7), slice(4, 9))  # 60 voxels
SMALL = (slice(0, 1), slice(10, 12), slice(12, 14))  # 4 voxels in a corner
FINGERPRINT = {
    "spacing_mm": {"p5": (2.5, 0.7, 0.7), "median": (5.0, 0.8, 0.8), "p95": (10.0, 0.9, 0.9)},
    "extent_mm": {"p5": (20, 20, 10), "median": (40, 24, 14), "p95": (80, 30, 20)},
    "intensity": {"mean": 60.0, "sd": 20.0},
}


def evidence(*boxes, **changes):
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    generator = np.random.default_rng(0)
    known = {
        "mask": mask,
        "probability": generator.integers(0, 256, SHAPE).astype(np.uint8),
        "other": generator.random(SHAPE) < 0.4,
        "organs": None,
        "hu": generator.normal(60, 20, SHAPE).astype(np.int16),
        "spacing_zyx": SPACING,
    }
    return Evidence(**(known | changes))


def border(box):
    mask = np.zeros(SHAPE, bool)
    mask[box] = True
    full = np.ones((3, 3, 3))
    return ndimage.binary_dilation(mask, full) & ~ndimage.binary_erosion(mask, full, border_value=1)


def entropy(values):
    total = 0.0
    for value in values:
        p = value / 255
        total -= sum(share * math.log2(share) for share in (p, 1 - p) if share)
    return total / len(values)


def test_each_component_has_its_own_figures():
    case = evidence(LARGE, SMALL)
    _, rows = judge(case, FINGERPRINT)
    assert [(row["component"], row["voxels"]) for row in rows] == [(1, 60), (2, 4)]
    assert set(COMPONENT_FIGURES) < set(rows[0])
    for row, box in zip(rows, (LARGE, SMALL), strict=True):
        assert row["volume_ml"] == pytest.approx(row["voxels"] * 0.01)
        assert row["confidence"] == pytest.approx(case.probability[box].mean() / 255)
        assert row["agreement"] == pytest.approx(case.other[box].mean())
        assert row["entropy"] == pytest.approx(entropy(case.probability[border(box)]))
        assert row["mean_hu"] == pytest.approx(case.hu[box].mean())
        assert row["intensity_distance"] == pytest.approx(abs(row["mean_hu"] - 60) / 20)
        assert row["organ_share"] is None


def test_the_whole_is_weighed_by_voxels():
    case = evidence(LARGE, SMALL)
    figures, _ = judge(case, FINGERPRINT)
    assert {*figures, "uncertainty"} == set(CASE_FIGURES)
    assert figures["tumor_ml"] == pytest.approx(0.64)
    assert figures["largest_ml"] == pytest.approx(0.60)
    assert figures["components"] == 2
    assert figures["confidence"] == pytest.approx(case.probability[case.mask].mean() / 255)
    assert figures["agreement"] == dice(case.mask, case.other)
    assert figures["off_organ"] is None


def test_sure_voxels_have_no_entropy_and_coins_have_one_bit():
    for value, bits in ((0, 0.0), (255, 0.0), (128, 1.0)):
        sure = np.full(SHAPE, value, np.uint8)
        _, rows = judge(evidence(LARGE, probability=sure), {})
        assert rows[0]["entropy"] == pytest.approx(bits, abs=1e-4)


def test_the_organ_is_the_one_that_is_touched_most():
    organs = np.zeros(SHAPE, np.uint8)
    organs[1:6, 2:8, 9] = 1  # all 30 voxels of the shell beside one face
    organs[1:6, 2:8, 3] = 5
    organs[3, 2, 3] = 0  # and 29 on the other side
    figures, rows = judge(evidence(LARGE, SMALL, organs=organs), {})
    assert rows[0]["organ"] == "liver"
    assert rows[0]["organ_share"] == pytest.approx(59 / (5 * 6 * 7 - 60))
    assert (rows[1]["organ"], rows[1]["organ_share"]) == ("none", 0.0)
    assert figures["off_organ"] == 1


def test_an_empty_pseudo_label_has_the_figures_of_its_scan_alone():
    figures, rows = judge(evidence(other=np.zeros(SHAPE, bool)), FINGERPRINT)
    assert rows == []
    assert figures["tumor_ml"] == figures["largest_ml"] == figures["components"] == 0
    assert figures["confidence"] is figures["entropy"] is figures["intensity_distance"] is None
    assert figures["agreement"] == 1.0
    assert figures["distance"] == figures["spacing_distance"]


def test_dice_of_nothing_and_nothing_is_one():
    nothing, something = np.zeros(4, bool), np.array([1, 1, 0, 0], bool)
    assert dice(nothing, nothing) == 1.0
    assert dice(nothing, something) == 0.0
    assert dice(something, np.array([0, 1, 1, 1], bool)) == pytest.approx(2 / 5)


def test_distance_is_in_standard_deviations_of_the_logarithm():
    at_median = distances(FINGERPRINT, (5.0, 0.8, 0.8), (8, 30, 17.5), 60.0)
    assert all(value == pytest.approx(0, abs=1e-12) for value in at_median.values())
    deviation = math.log(10.0 / 2.5) / 3.29
    found = distances(FINGERPRINT, (20.0, 0.8, 0.8), (8, 30, 17.5), 100.0)
    assert found["spacing_distance"] == pytest.approx(math.log(4) / deviation)
    assert found["intensity_distance"] == pytest.approx(2.0)
    assert found["distance"] == max(value for name, value in found.items() if name != "distance")


def test_a_cohort_of_one_spacing_takes_nearly_the_same_for_the_same():
    same = {"p5": (5.0,) * 3, "median": (5.0,) * 3, "p95": (5.0,) * 3}
    found = distances({"spacing_mm": same}, (5.1, 5.0, 5.0), SHAPE, 3.0)
    assert found["spacing_distance"] == pytest.approx(math.log(1.02) / 0.05)
    assert found["extent_distance"] is found["intensity_distance"] is None


def test_without_a_fingerprint_no_distance_is_known():
    assert set(distances({}, SPACING, SHAPE, 60.0).values()) == {None}


@pytest.mark.paper
def test_uncertainty_is_flare22s_mean_over_pairs_of_rounds():
    rounds = [
        np.array([1, 1, 1, 0, 0, 0], bool),
        np.array([1, 1, 0, 1, 0, 0], bool),  # 2 differ, 3 are foreground
        np.array([1, 1, 0, 1, 1, 0], bool),  # 1 differs, 4 are foreground
    ]
    assert round_uncertainty(rounds) == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert round_uncertainty(rounds[:1]) is None
    vanished = [rounds[0], np.zeros(6, bool)]
    assert round_uncertainty(vanished) == 3.0
