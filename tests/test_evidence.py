"""A made-up cohort whose organs lie at the same heights in every patient."""

import pytest

from flarekd.evidence import weigh
from flarekd.extents import Extent
from flarekd.labels import GROUPS, ORGANS
from flarekd.norms import Facts, learn

LIVER, SPLEEN, GALLBLADDER, LEFT_KIDNEY = 1, 3, 9, 13
SCAN_MM = 400.0


def organ(label, *, ml=100.0, shift=0.0, cut_off=()):
    """An organ 60 mm high, the higher the larger its id, in a scan that begins at its foot."""
    low = 20.0 * label + shift
    return Extent(int(ml * 10), ml, low, low + 60, low + 30, tuple(cut_off))


def organs(ids, **how):
    return {label: organ(label, **how) for label in ids}


def facts(drawn=None, pseudo=None, **more):
    return Facts("case", more.pop("height_mm", SCAN_MM), drawn, pseudo, **more)


@pytest.fixture(scope="module")
def norms():
    return learn([facts(organs(ORGANS, ml=90 + number)) for number in range(21)])


def lacking(evidence):
    return {one.label: (one.verdict, one.why) for one in evidence.lacking}


def test_a_case_of_all_organs_lacks_none(norms):
    found = weigh(facts(organs(GROUPS[7])), norms)
    assert (found.group, found.exact, found.annotated) == (7, True, tuple(range(1, 14)))
    assert (found.why, found.note) == ("its ids are those of group 7", "")
    assert not found.is_ambiguous
    assert found.lacking == found.outliers == ()


def test_a_case_without_a_label_file_has_nothing_to_weigh(norms):
    assert weigh(facts(None, organs(ORGANS)), norms) is None


def test_what_no_case_of_the_group_has_was_not_annotated(norms):
    found = weigh(facts(organs(GROUPS[3])), norms)
    assert set(lacking(found)) == {5, 6, 7, 8, 9, 10, 11, 12}
    assert {verdict for verdict, _ in lacking(found).values()} == {"not annotated"}
    assert not found.is_ambiguous
    assert found.note == ""


def test_an_organ_that_a_pseudo_label_shows_was_not_annotated(norms):
    found = weigh(facts(organs(GROUPS[6]), organs(ORGANS, ml=25.0)), norms)
    told = "the organ pseudo-label shows 25 ml of it"
    assert lacking(found) == {GALLBLADDER: ("not annotated", told)}
    assert not found.is_ambiguous
    assert found.why.startswith(
        f"its ids are those of group 6; gallbladder not annotated: {told}; liver of the organ"
    )


def test_an_organ_in_the_field_of_view_that_no_source_has_was_perhaps_removed(norms):
    ids = GROUPS[6]
    found = weigh(facts(organs(ids), organs(ids)), norms)
    verdict, why = lacking(found)[GALLBLADDER]
    assert verdict == "perhaps removed"
    assert why == (
        "100% of it expected in the scan, by the lower end of the liver (±0 mm in 21 cases), "
        "and the organ pseudo-label has none either"
    )
    assert found.is_ambiguous
    assert found.note.startswith("gallbladder absent or not annotated? taken as not annotated; ")


def test_without_a_pseudo_label_it_is_unclear_whether_it_was_removed(norms):
    found = weigh(facts(organs(GROUPS[6])), norms)
    verdict, why = lacking(found)[GALLBLADDER]
    assert (verdict, found.is_ambiguous) == ("unclear", True)
    assert why.endswith("removed or not annotated")


@pytest.mark.parametrize(
    ("shift", "height_mm", "told"),
    [
        (0.0, 230.0, "expected 30 mm beyond the end at the head, by the lower"),  # from 260
        (-340.0, SCAN_MM, "expected 20 mm beyond the end at the feet, by the lower"),  # to -20
        (-310.0, SCAN_MM, "17% of it expected in the scan, by the lower"),  # from -50 to 10
    ],
)
def test_an_organ_that_lies_beyond_the_end_of_the_scan_is_one_that_it_does_not_reach(
    norms, shift, height_mm, told
):
    case = facts(organs(GROUPS[7] - {LEFT_KIDNEY}, shift=shift), height_mm=height_mm)
    found = weigh(case, norms)  # as group 5
    verdict, why = lacking(found)[LEFT_KIDNEY]
    assert verdict == "scan ends"
    assert why.startswith(told)
    assert not found.is_ambiguous


def test_an_organ_that_the_scan_cuts_tells_by_its_other_end_where_others_lie(norms):
    liver = organ(LIVER, cut_off=("feet",))
    found = weigh(facts({LIVER: liver}, height_mm=200.0), norms, {1: frozenset({LIVER})})
    told = "expected 60 mm beyond the end at the head, by the upper end of the liver (±0 mm in 21"
    assert lacking(found)[LEFT_KIDNEY] == ("scan ends", f"{told} cases)")
    both = organ(LIVER, cut_off=("feet", "head"))
    found = weigh(facts({LIVER: both}, height_mm=200.0), norms, {1: frozenset({LIVER})})
    assert lacking(found)[LEFT_KIDNEY][0] == "not annotated"


def test_a_sliver_of_an_organ_at_the_last_slice_means_that_the_scan_ends(norms):
    pseudo = {LEFT_KIDNEY: organ(LEFT_KIDNEY, ml=2.0, cut_off=("head",))}
    found = weigh(facts(organs(GROUPS[2]), pseudo), norms)
    assert lacking(found)[LEFT_KIDNEY] == (
        "scan ends",
        "no more than 2 ml of it are in the scan",
    )


def test_without_a_cohort_nothing_is_known_of_where_organs_lie():
    found = weigh(facts(organs(GROUPS[2])), learn([]))
    assert lacking(found)[LEFT_KIDNEY] == ("unclear", "")
    assert found.is_ambiguous
    assert found.note == "left_kidney absent or not annotated? taken as not annotated"


def test_a_case_of_no_group_is_clear_where_every_organ_that_it_lacks_is(norms):
    ids = GROUPS[3] - {SPLEEN}
    assert weigh(facts(organs(ids)), norms).is_ambiguous
    found = weigh(facts(organs(ids), organs(ORGANS)), norms)
    assert (found.group, found.exact, found.is_ambiguous) == (3, False, False)
    assert "spleen not annotated: the organ pseudo-label shows 100 ml of it" in found.note


@pytest.mark.parametrize("ids", [set(), {5, 14}])
def test_a_case_that_fits_no_group_at_all_is_for_a_person(norms, ids):
    found = weigh(facts(organs(ids)), norms)
    assert (found.group, found.is_ambiguous) == (None, True)
    assert bool(found.lacking) == bool(ids)  # an empty label file says nothing of any organ


def test_all_organs_and_the_tumour_fit_no_group_and_are_clear(norms):
    found = weigh(facts(organs({*ORGANS, 14})), norms)
    assert (found.group, found.is_ambiguous, found.lacking) == (None, False, ())
    assert found.note == "ids match no group, nor part of one"


def test_a_volume_far_from_the_typical_one_is_told_with_what_is_typical(norms):
    # median 100 ml; the deviation is the least one, 0.1: exp(±0.35)
    case = facts(organs(ORGANS) | {SPLEEN: organ(SPLEEN, ml=70.0)})
    (outlier,) = weigh(case, norms).outliers
    assert (outlier.name, outlier.source, outlier.ml) == ("spleen", "label", 70.0)
    assert (outlier.typical.low_ml, outlier.typical.high_ml) == (70.469, 141.907)
    assert weigh(case, norms).note == "spleen 70 ml, typical 100 (70 to 142)"
    assert not weigh(case, norms).is_ambiguous


def test_an_organ_that_the_scan_cuts_is_not_called_small_but_may_be_called_large(norms):
    small = organ(SPLEEN, ml=20.0, cut_off=("head",))
    large = organ(SPLEEN, ml=300.0, cut_off=("head",))
    assert weigh(facts(organs(ORGANS) | {SPLEEN: small}), norms).outliers == ()
    (outlier,) = weigh(facts(organs(ORGANS) | {SPLEEN: large}), norms).outliers
    assert outlier.ml == 300.0


def test_a_tumour_has_no_typical_volume(norms):
    huge = organs(GROUPS[4]) | {14: organ(14, ml=9000.0)}
    assert weigh(facts(huge), norms).outliers == ()


def kits(drawn, pseudo=None):
    return facts(drawn, pseudo, dataset="kits23", vouched=frozenset({2, 13, 14}))


def test_a_data_set_vouches_for_its_classes_whether_they_are_there_or_not(norms):
    found = weigh(kits(organs({2, 13})), norms)
    assert (found.annotated, found.group, found.is_ambiguous) == ((2, 13, 14), None, False)
    assert found.why == ("data set 'kits23' has annotated right_kidney, left_kidney, tumor")
    assert lacking(found)[LIVER] == ("not annotated", "no case of its data set has it")


def test_a_data_set_in_a_group_of_the_users_is_in_that_group(norms):
    groups = GROUPS | {9: frozenset({2, 13, 14})}
    assert weigh(kits(organs({2, 13})), norms, groups).group == 9


def test_an_absent_class_that_a_data_set_vouches_for_and_a_pseudo_label_shows_is_contradicted(
    norms,
):
    found = weigh(kits(organs({2, 14}), organs({13})), norms)
    assert lacking(found)[13] == ("contradicted", "the organ pseudo-label shows 100 ml of it")
    assert found.is_ambiguous
    removed = weigh(kits(organs({2, 14}), organs({2})), norms)
    assert lacking(removed)[13][0] == "perhaps removed"
    assert not removed.is_ambiguous  # who vouches for it says that it is not there
