from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd import config
from flarekd.training.sampling import (
    Pick,
    draw_holder,
    draw_pick,
    draw_place,
    draw_start,
    holders,
    is_forced,
    stratify,
)

STUDENT = config.load(config.builtin("quick")).student


@dataclass
class Fake:
    shape_zyx: tuple
    voxels: dict
    lesions: tuple = ()
    lesions_mm3: tuple = ()

    def lesion_voxels(self, lesion):
        return np.array(self.lesions[lesion])

    @property
    def classes(self):
        return list(self.voxels)

    def locations(self, label):
        return np.array(self.voxels[label])


@pytest.mark.paper
def test_one_of_four_and_one_of_two_are_forced():
    assert [is_forced(i, 4, 0.33) for i in range(4)] == [False, False, False, True]
    assert [is_forced(i, 2, 0.33) for i in range(2)] == [False, True]


def test_a_forced_patch_is_centred_on_a_voxel_of_the_class():
    case = Fake((40, 60, 80), {3: [(20, 30, 40)]})
    rng = np.random.default_rng(0)
    assert draw_start(rng, case, (8, 8, 8), (8, 8, 8), forced=True) == (16, 26, 36)


def test_a_forced_patch_is_clamped_at_the_lower_end_alone():
    rng = np.random.default_rng(0)
    low, high = Fake((40, 60, 80), {3: [(0, 0, 0)]}), Fake((40, 60, 80), {3: [(39, 59, 79)]})
    assert draw_start(rng, low, (8, 8, 8), (8, 12, 12), forced=True) == (0, -2, -2)
    assert draw_start(rng, high, (8, 8, 8), (8, 8, 8), forced=True) == (35, 55, 75)


def test_classes_are_drawn_alike_however_many_voxels_they_have():
    case = Fake((40, 60, 80), {1: [(20, 30, 40)] * 1000, 2: [(5, 6, 7)]})
    rng = np.random.default_rng(0)
    starts = [draw_start(rng, case, (2, 2, 2), (2, 2, 2), forced=True) for _ in range(400)]
    assert 140 < starts.count((4, 5, 6)) < 260


def test_slices_are_drawn_alike_for_a_flat_patch():
    case = Fake((40, 60, 80), {1: [(3, y, x) for y in range(30) for x in range(30)] + [(7, 1, 1)]})
    rng = np.random.default_rng(0)
    slices = [draw_start(rng, case, (1, 4, 4), (1, 4, 4), forced=True)[0] for _ in range(400)]
    assert 140 < slices.count(7) < 260
    assert set(slices) == {3, 7}


def test_a_case_without_foreground_gives_a_patch_from_anywhere():
    rng = np.random.default_rng(0)
    assert draw_start(rng, Fake((4, 4, 4), {}), (4, 4, 4), (4, 4, 4), forced=True) == (0, 0, 0)


sizes = st.tuples(*[st.integers(1, 40)] * 3)


@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_a_random_patch_reaches_over_the_border_by_its_margin_alone(shape, patch, seed):
    oversize = tuple(length + 6 for length in patch)
    start = draw_start(np.random.default_rng(seed), Fake(shape, {}), patch, oversize, forced=False)
    for first, length, outer in zip(start, shape, oversize, strict=True):
        if length >= outer - 6:  # the patch fits: it lies inside
            assert first + 3 >= 0
            assert first + 3 + (outer - 6) <= length
        else:  # the case fits: it lies inside the region
            assert first <= 0
            assert first + outer >= length


def cohort():
    """Lesions of 5 to 5,000 mm³ in three of four cases, many of them small and in one case."""
    shape = (40, 60, 80)
    return [
        Fake(shape, {}, lesions_mm3=(5.0,) * 50),
        Fake(shape, {}),
        Fake(shape, {}, lesions_mm3=(7.0, 400.0)),
        Fake(shape, {}, lesions_mm3=(5000.0, 100.0, 999.9)),
    ]


def test_lesions_are_sorted_by_decades_of_volume():
    assert [dict(stratum) for stratum in stratify(cohort())] == [
        {0: list(range(50)), 2: [0]},
        {2: [1], 3: [1, 2]},
        {3: [0]},
    ]


def test_every_decade_is_drawn_alike_then_every_case_then_every_lesion():
    strata, rng, n = stratify(cohort()), np.random.default_rng(0), 6000
    drawn = Counter(
        (pick.case, pick.lesion)
        for pick in (draw_pick(rng, 4, strata, 1.0, forced=True) for _ in range(n))
    )
    expected = {(0, lesion): 1 / 3 / 2 / 50 for lesion in range(50)} | {
        (2, 0): 1 / 6,
        (2, 1): 1 / 6,
        (3, 1): 1 / 12,
        (3, 2): 1 / 12,
        (3, 0): 1 / 3,
    }
    assert sum(expected.values()) == pytest.approx(1)
    assert set(drawn) == set(expected)
    for pick, share in expected.items():
        assert drawn[pick] / n == pytest.approx(share, abs=5 * np.sqrt(share / n))


def test_lesions_are_drawn_by_their_share_of_the_forced_alone():
    strata, rng = stratify(cohort()), np.random.default_rng(0)
    forced = [draw_pick(rng, 4, strata, 0.25, forced=True) for _ in range(2000)]
    assert sum(pick.lesion is not None for pick in forced) == pytest.approx(500, abs=100)
    others = [draw_pick(rng, 4, strata, 1.0, forced=False) for _ in range(2000)]
    assert all(pick.lesion is None for pick in others)
    cases = Counter(pick.case for pick in others)
    assert all(cases[case] == pytest.approx(500, abs=100) for case in range(4))


def test_every_class_is_drawn_alike_then_every_case_that_holds_it():
    cases = [Fake((9, 9, 9), {1: [(2, 2, 2)]}) for _ in range(3)]
    cases.append(Fake((9, 9, 9), {1: [(2, 2, 2)], 4: [(6, 6, 6)]}))
    by_class, rng = holders(cases), np.random.default_rng(0)
    assert by_class == {1: [0, 1, 2, 3], 4: [3]}
    drawn = Counter(
        (pick.case, pick.label) for pick in (draw_holder(rng, by_class) for _ in range(4000))
    )
    expected = {(0, 1): 500, (1, 1): 500, (2, 1): 500, (3, 1): 500, (3, 4): 2000}
    assert set(drawn) == set(expected)
    assert all(drawn[pick] == pytest.approx(count, abs=200) for pick, count in expected.items())
    settings = STUDENT.model_copy(update={"patch": (3, 3, 3), "oversize": (3, 3, 3)})
    start = draw_place(rng, cases[3], Pick(3, label=4), settings, forced=True)
    assert start == (5, 5, 5)


def test_classes_are_drawn_by_their_weight_and_what_cannot_be_read_is_left_out():
    by_class, rng = {1: [0, 1], 4: [1]}, np.random.default_rng(0)
    weights = (1.0, 1.0, 1.0, 1.0, 3.0)
    labels = Counter(draw_holder(rng, by_class, weights).label for _ in range(2000))
    assert labels[4] == pytest.approx(1500, abs=100)
    assert draw_holder(rng, by_class, weights, without={1}) == Pick(0, label=1)
    assert draw_holder(rng, by_class, (1.0, 0.0, 1.0, 1.0, 0.0)) is None
    assert draw_holder(rng, by_class, without={0, 1}) is None


def test_where_there_is_no_lesion_a_forced_patch_is_an_ordinary_one():
    pick = draw_pick(np.random.default_rng(0), 3, stratify([]), 1.0, forced=True)
    assert pick.lesion is None


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("patch", [(8, 16, 16), (1, 16, 16)])
def test_without_lesion_sampling_the_draws_are_the_same_as_ever(forced, patch):
    settings = STUDENT.model_copy(
        update={"patch": patch, "oversize": (patch[0], 20, 20), "class_weights": (), "lesions": 0.0}
    )
    cases = [Fake((40, 60, 80), {1: [(3, 4, n), (30, 40, 50)], 2: [(9, 9, 9)]}) for n in range(5)]
    for seed in range(50):
        expected, found = (np.random.default_rng([seed, 7]) for _ in range(2))
        number = int(expected.integers(5))
        start = draw_start(expected, cases[number], patch, settings.oversize, forced=forced)
        pick = draw_pick(found, 5, stratify(cohort()), settings.lesions, forced=forced)
        assert pick == Pick(number)
        assert draw_place(found, cases[number], pick, settings, forced=forced) == start
        assert expected.random() == found.random()  # and the stream stands where it stood


def test_a_case_that_is_left_out_is_drawn_neither_way_and_the_others_alike():
    strata, rng = stratify(cohort()), np.random.default_rng(0)
    for share in (0.0, 1.0):
        picks = [draw_pick(rng, 4, strata, share, forced=True, without={3}) for _ in range(3000)]
        assert 3 not in {pick.case for pick in picks}
        if share:  # two decades are left, each with half of the draws
            large = sum((pick.case, pick.lesion) == (2, 1) for pick in picks)
            assert large == pytest.approx(1500, abs=150)
        else:
            cases = Counter(pick.case for pick in picks)
            assert all(cases[case] == pytest.approx(1000, abs=150) for case in range(3))


@pytest.mark.parametrize(
    ("voxel", "shape"),
    [((20, 30, 40), (40, 60, 80)), ((0, 59, 0), (40, 60, 80)), ((2, 3, 4), (5, 10, 12))],
)
def test_a_lesion_lies_in_the_patch_and_off_its_centre_by_a_quarter_at_most(voxel, shape):
    patch, oversize = (8, 16, 20), (8, 24, 30)
    settings = STUDENT.model_copy(update={"patch": patch, "oversize": oversize})
    case, rng = Fake(shape, {}, lesions=([voxel],)), np.random.default_rng(0)
    starts = np.array(
        [draw_place(rng, case, Pick(0, 0), settings, forced=True) for _ in range(500)]
    )
    margin = (np.array(oversize) - patch) // 2
    within = np.array(voxel) - (starts + margin)
    assert (within >= 0).all()
    assert (within < patch).all()
    if shape == (40, 60, 80) and voxel[0] == 20:
        offset = within - np.array(patch) // 2
        assert offset.min(0).tolist() == [-2, -4, -5]
        assert offset.max(0).tolist() == [2, 4, 5]
        assert np.abs(offset.mean(0)).max() < 0.6


def test_a_flat_patch_holds_the_slice_of_the_lesion_voxel():
    settings = STUDENT.model_copy(update={"patch": (1, 16, 16), "oversize": (1, 20, 20)})
    case = Fake((40, 60, 80), {}, lesions=([(3, 30, 30), (4, 30, 31)],))
    rng = np.random.default_rng(0)
    slices = {draw_place(rng, case, Pick(0, 0), settings, forced=True)[0] for _ in range(50)}
    assert slices == {3, 4}
