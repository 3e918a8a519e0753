"""What is said of fused labels, against arrays whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from flarekd.fusion import count, fuse, rules
from flarekd.fusion_checks import Facts, examine, flags, outliers

SPACING = (5.0, 2.0, 1.0)  # 0.01 ml a voxel
SHAPE = (20, 40, 60)


def box(array, label, z, y, x):
    array[slice(*z), slice(*y), slice(*x)] = label
    return array


def empty():
    return np.zeros(SHAPE, np.uint8)


def facts(partial, tumor, organs, annotated, ignored=None):
    how = rules(annotated)
    counts = count(partial, tumor, organs)
    fused = fuse(partial, tumor, organs, annotated)
    lost = np.zeros_like(counts) if ignored is None else ignored
    return examine(fused, counts, lost, how, annotated=annotated, spacing_zyx=SPACING)


def of_organs(organs):
    return facts(empty(), np.zeros(SHAPE, bool), organs, ())


def test_voxels_are_told_by_class_and_source():
    partial = box(empty(), 1, (2, 12), (5, 15), (5, 15))  # liver, drawn: 1000
    organs = box(empty(), 1, (2, 12), (5, 15), (7, 15))  # 800 of it
    box(organs, 1, (2, 12), (5, 15), (15, 18))  # 300 that the person did not call liver
    box(organs, 3, (2, 12), (20, 30), (40, 44))  # spleen, not annotated: 400
    tumor = box(np.zeros(SHAPE, bool), True, (4, 6), (5, 10), (8, 10))  # 20 in the liver
    box(tumor, True, (4, 6), (20, 25), (40, 41))  # 10 in the spleen
    found = facts(partial, tumor, organs, {1})
    assert found.voxel_ml == pytest.approx(0.01)
    assert found.human == {"liver": 980}
    assert found.pseudo == {"spleen": 390, "tumor": 30}
    assert found.organ_against_human == 200 + 300
    assert found.conflicts == {"liver": 200 + 300}
    assert found.tumor_over_human == 20
    assert found.tumor_over_pseudo == 10
    assert found.under_tumor == {"liver": 20, "spleen": 10}
    assert found.tumor_share == {"liver": 0.02, "spleen": 0.025}
    assert found.volume_ml("liver") == pytest.approx(9.8)
    assert found.swapped == found.cut == found.strange == found.lacking == []


def test_a_contradiction_of_two_organs_counts_for_both():
    partial = box(empty(), 1, (2, 12), (5, 15), (5, 15))
    organs = box(partial.copy(), 3, (2, 4), (5, 15), (5, 15))
    found = facts(partial, np.zeros(SHAPE, bool), organs, {1})
    assert (found.organ_against_human, found.conflicts) == (200, {"liver": 200, "spleen": 200})


def test_without_organ_pseudo_label_nothing_contradicts():
    partial = box(empty(), 1, (2, 12), (5, 15), (5, 15))
    assert facts(partial, np.zeros(SHAPE, bool), empty(), {1}).organ_against_human == 0


def test_a_drawn_tumour_counts_as_human_and_takes_its_share_of_the_organ_below():
    partial = box(empty(), 14, (2, 4), (5, 15), (5, 15))
    organs = box(empty(), 2, (2, 6), (5, 15), (5, 15))
    found = facts(partial, np.ones(SHAPE, bool), organs, {14})
    assert found.human == {"tumor": 200}
    assert found.pseudo == {"right_kidney": 200}
    assert found.tumor_share == {"right_kidney": 0.5}
    assert flags(found) == ["tumour takes 50% of right_kidney"]


def test_ignored_voxels_count_for_no_class():
    partial = box(empty(), 1, (2, 12), (5, 15), (5, 15))
    organs = empty()
    some = np.zeros(SHAPE, bool)
    some[2:4, 5:15, 5:15] = True
    lost = count(*(array[some][None] for array in (partial, np.zeros(SHAPE, bool), organs)))
    found = facts(partial, np.zeros(SHAPE, bool), organs, {1}, lost)
    assert found.ignored == 200
    assert found.human == {"liver": 800}


@pytest.mark.parametrize(("right", "left"), [(2, 13), (7, 8), (1, 3)])
def test_sides_are_swapped_where_the_right_one_lies_to_the_left(right, left):
    organs = box(empty(), right, (2, 8), (5, 15), (5, 15))
    box(organs, left, (2, 8), (5, 15), (40, 50))
    assert of_organs(organs).swapped == []
    mirrored = of_organs(organs[:, :, ::-1].copy())
    assert len(mirrored.swapped) == 1
    assert flags(mirrored)[0].startswith("sides swapped? ")


def test_one_kidney_alone_lies_on_no_wrong_side():
    assert of_organs(box(empty(), 2, (2, 8), (5, 15), (45, 55))).swapped == []


def test_only_big_pieces_count():
    organs = box(empty(), 3, (2, 12), (5, 15), (5, 15))  # 10 ml
    box(organs, 3, (2, 12), (20, 25), (30, 38))  # 4 ml
    box(organs, 3, (14, 18), (20, 25), (30, 39))  # 1.8 ml: not big
    found = of_organs(organs)
    assert found.pieces == {"spleen": [10.0, 4.0]}
    assert flags(found) == ["spleen in 2 big pieces: 10 ml, 4 ml"]


def test_ids_are_compared_with_what_is_annotated():
    partial = box(box(empty(), 1, (2, 4), (5, 15), (5, 15)), 9, (6, 8), (5, 15), (5, 15))
    found = facts(partial, np.zeros(SHAPE, bool), partial % 14, {1, 2})
    assert found.strange == [9]
    assert found.lacking == [2]
    assert found.unvouched == 200
    assert found.human == {"liver": 200, "gallbladder": 200}  # drawn in part is drawn
    assert flags(found) == [
        "gallbladder drawn but not annotated",
        "right_kidney annotated but not drawn",
    ]


def test_a_pseudo_label_that_contradicts_much_of_what_was_drawn_is_flagged():
    partial = box(empty(), 1, (2, 12), (5, 15), (5, 15))
    for last, expected in ((13, 0), (12, 1)):
        organs = box(empty(), 1, (2, 12), (5, 15), (5, last + 1))
        assert len(flags(facts(partial, np.zeros(SHAPE, bool), organs, {1}))) == expected


def liver(ml, *, cut=False):
    names = ["liver"] if cut else []
    human = {"liver": ml} if ml else {}
    return Facts(1.0, human, {}, 0, 0, 0, {}, 0, 0, {}, {}, {}, [], names)


def test_volumes_unlike_the_cohorts_are_named():
    cohort = {f"case_{n}": liver(1400 + 20 * n) for n in range(12)}
    cohort |= {"small": liver(300), "large": liver(9000), "none": liver(0)}
    cohort |= {"short": liver(300, cut=True), "wide": liver(9000, cut=True)}
    assert outliers(cohort) == {
        "small": ["liver 300 ml, usually 1510 ml"],
        "large": ["liver 9000 ml, usually 1510 ml"],
        "none": ["liver missing, usually 1510 ml"],
        "wide": ["liver 9000 ml, usually 1510 ml"],
    }


def test_few_cases_say_nothing_about_what_is_usual():
    cohort = {f"case_{n}": liver(1500) for n in range(8)}
    assert outliers(cohort | {"small": liver(3)}) == {}


def test_an_organ_that_many_lack_is_not_missed():
    cohort = {f"case_{n}": liver(1500) for n in range(20)}
    cohort |= {f"without_{n}": liver(0) for n in range(5)}
    assert outliers(cohort) == {}
