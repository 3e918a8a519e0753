from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.labels import GROUP_COUNTS
from flarekd.phantom.plan import LARGEST_MM, group_sizes, plan_cohort


@pytest.mark.paper
def test_2200_labelled_cases_fall_into_the_groups_of_table_1():
    assert group_sizes(2200) == GROUP_COUNTS


@given(labelled=st.integers(0, 500))
def test_group_sizes_are_whole_and_nearest_to_their_shares(labelled):
    sizes = group_sizes(labelled)
    assert sum(sizes.values()) == labelled
    for group, size in sizes.items():
        assert abs(size - labelled * GROUP_COUNTS[group] / 2200) < 1


def test_48_cases_are_22_labelled_18_unlabelled_and_8_for_validation():
    plans = plan_cohort(48, "quick", 0)
    assert Counter(plan.role for plan in plans) == {"labelled": 22, "unlabelled": 18, "val": 8}
    groups = Counter(plan.group for plan in plans if plan.role == "labelled")
    assert groups == {1: 9, 3: 5, 4: 6, 7: 2}
    assert all(plan.group == 0 for plan in plans if plan.role != "labelled")
    assert [plan.case for plan in plans[:2]] == ["phantom_0001", "phantom_0002"]


@given(cases=st.integers(4, 90), seed=st.integers(0, 50))
def test_every_cohort_has_labels_validation_and_tumors_where_they_are_annotated(cases, seed):
    plans = plan_cohort(cases, "quick", seed)
    roles = Counter(plan.role for plan in plans)
    assert roles["val"] >= 2
    assert roles["labelled"] >= 1
    assert all(plan.tumors for plan in plans if plan.group in {1, 4})


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert plan_cohort(12, "full", 5) == plan_cohort(12, "full", 5)
    assert plan_cohort(12, "full", 5) != plan_cohort(12, "full", 6)


def test_some_annotated_organs_are_missing_so_that_groups_can_be_mistaken():
    plans = plan_cohort(48, "quick", 0)
    lacking = {(plan.group, organ) for plan in plans for organ in plan.missing}
    assert (7, "gallbladder") in lacking  # looks like group 6
    assert (3, "left_kidney") in lacking  # looks like group 2
    assert sum(bool(plan.missing) for plan in plans) < 12


@pytest.fixture(scope="module")
def many():
    return [plan for seed in range(8) for plan in plan_cohort(60, "full", seed)]


def test_scans_differ_in_phase_field_of_view_spacing_and_storage(many):
    assert {plan.phase for plan in many} == {"native", "arterial", "portal"}
    assert {plan.region for plan in many} == {"upper", "abdomen_pelvis", "trunk"}
    assert len({plan.storage.axes for plan in many}) >= 8
    assert 0.1 < np.mean([any(plan.storage.oblique_deg) for plan in many]) < 0.3
    assert all(any(plan.storage.origin) for plan in many)
    assert {plan.thickness_mm for plan in many} >= {1.0, 2.0, 3.0, 5.0}
    assert all(1 <= plan.thickness_mm <= 5 for plan in many)
    assert all(0.6 <= plan.pixel_mm <= 1.0 for plan in many)
    assert all(8 <= plan.noise_hu <= 25 for plan in many)
    assert 0.15 < np.mean([plan.circle for plan in many]) < 0.45


def test_full_scans_are_512_by_512_by_80_to_350(many):
    shapes = [plan.grid().shape for plan in many]
    assert {shape[1:] for shape in shapes} == {(512, 512)}
    assert min(shape[0] for shape in shapes) >= 80
    assert max(shape[0] for shape in shapes) <= 350


def test_quick_scans_are_small_and_coarse():
    for plan in plan_cohort(40, "quick", 3):
        depth, height, width = plan.grid().shape
        assert 35 <= depth <= 80
        assert height * width < 30000
        assert 2.6 <= plan.pixel_mm <= 3.4


def test_tumors_are_of_all_sizes_hosts_and_both_sides_of_their_organ(many):
    tumors = [tumor for plan in many for tumor in plan.tumors]
    sizes = np.asarray([tumor.diameter_mm for tumor in tumors])
    assert sizes.min() < 9
    assert sizes.max() > 70
    assert ((sizes >= 5) & (sizes <= 80)).all()
    assert 0.55 < ((sizes >= 20) & (sizes <= 60)).mean() < 0.95
    assert {tumor.host for tumor in tumors} == set(LARGEST_MM)
    contrast = np.asarray([tumor.contrast for tumor in tumors])
    assert (contrast > 20).mean() > 0.08
    assert (contrast < -20).mean() > 0.4
    assert (np.abs(contrast) < 15).mean() > 0.08
    assert 0.1 < np.mean([tumor.necrosis > 0 for tumor in tumors]) < 0.5
    assert 0.1 < np.mean([tumor.rim_hu > 0 for tumor in tumors]) < 0.5


@pytest.mark.parametrize(("cases", "held_out"), [(4, 2), (12, 2), (80, 8), (256, 25)])
def test_large_cohorts_hold_out_a_tenth(cases, held_out):
    assert [case.role for case in plan_cohort(cases, "quick", 0)].count("val") == held_out


@pytest.mark.parametrize(
    ("cases", "preset", "message"),
    [
        (3, "quick", "a cohort of 3 has no room"),
        (8, "fast", "preset 'fast' is none of quick, full"),
    ],
)
def test_an_impossible_cohort_is_refused(cases, preset, message):
    with pytest.raises(ValueError, match=message):
        plan_cohort(cases, preset, 0)
