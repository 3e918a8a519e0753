"""A made-up cohort in which every case is alike, and one thing at a time that is not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from flarekd.appearance import REACH_MM, Look, Mass, Measured
from flarekd.extents import Extent
from flarekd.labels import NAMES, ORGANS
from flarekd.suspicion import MOST_POINTS, judge, score
from flarekd.usuals import Subject, learn_usuals

CASES = 100


def organ(label, ml=100.0, cut_off=()):
    low = 20.0 * label
    return Extent(int(ml * 10), ml, low, low + 60, low + 30, tuple(cut_off))


def mass(number=1, **changes):
    usual = {"ml": 20.0, "diameter_mm": 30.0, "mean_hu": 50.0, "sd_hu": 15.0, "contrast": 3.0}
    return Mass(number, **{**usual, "organ": "liver", "organ_mm": 0.0, **changes})


def usual_case(number):
    """Volumes, HU and their spread wander a little, every one in its own way."""
    wander = [math.sin(number * (label + 1.7)) for label in range(14)]
    names = [NAMES[label] for label in ORGANS]
    return Measured(
        height_mm=400.0,
        extents={
            name: organ(label, 100 * math.exp(0.1 * wander[label]))
            for label, name in zip(ORGANS, names, strict=True)
        },
        looks={
            name: Look(80 + 8 * wander[label], 20 * math.exp(0.1 * wander[label]))
            for label, name in zip(ORGANS, names, strict=True)
        },
        masses=(mass(mean_hu=50 + 8 * wander[0], contrast=3 + wander[1], organ_mm=0.0),),
        parts=1,
        swapped=(),
        pieces={},
    )


COHORT = {f"case_{number:03d}": Subject(usual_case(number)) for number in range(CASES)}


def reasons_of(subject, cohort=None):
    return judge({**(cohort or COHORT), "odd": subject})["odd"]


def odd(**changes):
    return Subject(replace(usual_case(0), **changes))


def without(*names):
    case = usual_case(0)
    return {
        "extents": {name: one for name, one in case.extents.items() if name not in names},
        "looks": {name: one for name, one in case.looks.items() if name not in names},
    }


def test_nothing_is_said_of_a_cohort_that_is_alike():
    assert all(reasons == [] for reasons in judge(COHORT).values())


def test_swapped_sides_have_most_points():
    (reason,) = reasons_of(odd(swapped=("right_kidney/left_kidney",)))
    assert (reason.kind, reason.points, reason.label) == ("sides", MOST_POINTS, 2)
    assert reason.text.startswith("right kidney lies farther to the left than left kidney")


def test_an_organ_that_nearly_all_have_and_the_scan_should_show_is_missed():
    (reason,) = reasons_of(odd(**without("spleen")))
    # one in 101
    assert (reason.kind, reason.label, reason.points) == ("missing", 3, MOST_POINTS)
    assert reason.text.startswith("spleen missing: 100% of it expected in the scan")
    assert reason.name == "spleen"


def test_the_more_often_an_organ_lacks_the_less_it_is_missed():
    def lacking(count):
        few = {f"gone_{number}": odd(**without("spleen")) for number in range(count)}
        return [r.points for r in reasons_of(odd(**without("spleen")), {**COHORT, **few})]

    (rare,), (frequent,) = lacking(2), lacking(10)
    assert frequent == pytest.approx(math.log10(11 / 111) ** 2)
    assert rare > frequent
    assert lacking(60) == []  # more than a fifth lack it: these labels are partial


def test_an_organ_beyond_the_end_of_the_scan_is_not_missed():
    # the scan ends at 205 mm; esophagus, stomach, duodenum and left kidney begin at 200 or higher
    case = without("esophagus", "stomach", "duodenum", "left_kidney")
    assert reasons_of(odd(**case, height_mm=205.0)) == []
    found = reasons_of(odd(**case, height_mm=245.0))
    # three quarters of the esophagus should be there, and of the stomach less than half
    assert [reason.label for reason in found] == [10]


def test_volumes_count_as_logarithms_and_a_cut_organ_is_never_too_small():
    extents = dict(usual_case(0).extents)
    small = {**extents, "liver": organ(1, 10.0)}
    (reason,) = reasons_of(odd(extents=small))
    assert (reason.kind, reason.points, reason.label) == ("volume", MOST_POINTS, 1)
    assert reason.text == "liver 10 ml, usually 100 ml"
    assert reasons_of(odd(extents={**extents, "liver": organ(1, 10.0, ("head",))})) == []
    assert reasons_of(odd(extents={**extents, "liver": organ(1, 900.0, ("head",))})) != []


def test_a_map_off_its_scan_is_told_from_an_odd_organ():
    looks = usual_case(0).looks
    all_off = {name: Look(one.mean_hu, 4 * one.sd_hu) for name, one in looks.items()}
    kinds = {reason.kind for reason in reasons_of(odd(looks=all_off))}
    assert kinds == {"shift", "intensity"}
    one_off = {**looks, "spleen": Look(80.0, 80.0)}
    (reason,) = reasons_of(odd(looks=one_off))
    assert (reason.kind, reason.label) == ("intensity", 3)
    assert reason.text == "spleen spreads by 80 HU, usually by 20"


def test_organs_of_another_mean_are_told():
    (reason,) = reasons_of(odd(looks={**usual_case(0).looks, "liver": Look(-60.0, 20.0)}))
    assert (reason.kind, reason.label) == ("intensity", 1)
    assert reason.text == "liver is -60 HU, usually 80"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mean_hu": -90.0}, "-90 HU, usually 50"),
        ({"sd_hu": 90.0}, "HU spread by 90, usually 15"),
        ({"organ": "none", "organ_mm": REACH_MM}, "more than 40 mm from the nearest organ"),
        ({"organ": "none", "organ_mm": 25.0}, "25 mm from the nearest organ"),
        ({"contrast": 0.02}, "no border in the scan"),
    ],
)
def test_a_tumour_unlike_the_others_is_told_with_its_number(changes, told):
    (reason,) = reasons_of(odd(masses=(mass(), mass(2, **changes)), parts=2))
    assert (reason.kind, reason.label, reason.part) == ("tumour", 14, 2)
    assert reason.text.startswith("tumour of 20 ml ")
    assert told in reason.text


def test_a_few_voxels_of_tumour_are_not_judged():
    assert reasons_of(odd(masses=(mass(ml=0.1, mean_hu=-90.0),))) == []


def test_what_is_usual_of_tumours_comes_from_those_that_people_drew():
    drawn = {
        f"drawn_{number}": Subject(
            replace(usual_case(number), masses=(mass(mean_hu=-90.0),)), None, True
        )
        for number in range(20)
    }
    (reason,) = reasons_of(odd(), {**COHORT, **drawn})
    assert reason.kind == "tumour"
    assert "HU, usually -90" in reason.text


def test_sources_that_contradict_each_other_count_from_a_fifth_on():
    assert reasons_of(Subject(usual_case(0), conflict=0.19)) == []
    (reason,) = reasons_of(Subject(usual_case(0), conflict=0.5))
    assert (reason.kind, reason.points) == ("sources", 2.5)


def test_the_score_takes_the_worst_of_each_kind():
    found = reasons_of(
        odd(swapped=("right_kidney/left_kidney", "liver/spleen"), **without("spleen", "aorta"))
    )
    assert [reason.kind for reason in found].count("sides") == 2
    assert [reason.kind for reason in found].count("missing") == 2
    assert score(found) == 2 * MOST_POINTS
    assert score([]) == 0


def test_an_organ_in_pieces_counts_by_how_rare_that_is():
    broken = odd(pieces={"liver": [60.0, 30.0]})
    (reason,) = reasons_of(broken)
    assert (reason.kind, reason.points, reason.label) == ("pieces", MOST_POINTS, 1)
    assert reason.text == "liver in 2 big pieces: 60 ml, 30 ml"
    more = {f"broken_{number}": broken for number in range(10)}
    (reason,) = reasons_of(broken, {**COHORT, **more})
    assert reason.points == pytest.approx(math.log10(11 / 111) ** 2)
    many = {f"broken_{number}": broken for number in range(60)}
    assert reasons_of(broken, {**COHORT, **many}) == []


def test_a_tumour_that_is_a_little_odd_in_everything_is_odd():
    # 2.5 deviations each: the root of the sum of squares is 5
    usual = learn_usuals(COHORT)[0].tumors
    by = {name: 2.5 * one.spread for name, one in usual.items()}
    odd_mass = mass(
        mean_hu=usual["mean_hu"].median - by["mean_hu"],
        sd_hu=math.exp(usual["log_sd"].median + by["log_sd"]),
        contrast=math.exp(usual["log_contrast"].median - by["log_contrast"]),
        organ_mm=by["organ_mm"],
    )
    (reason,) = reasons_of(odd(masses=(odd_mass,)))
    assert reason.points == pytest.approx(5 / 3.5, rel=0.05)
    assert reason.text.count(",") >= 3  # all four are told


def test_a_cohort_too_small_to_know_what_is_usual_tells_sides_alone():
    swapped = odd(swapped=("right_kidney/left_kidney",))
    found = judge({"a": swapped, "b": odd(**without("spleen")), "c": odd(pieces={"liver": [6, 3]})})
    assert [reason.kind for reason in found["a"]] == ["sides"]
    assert found["b"] == found["c"] == []
