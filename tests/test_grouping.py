import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.grouping import Assignment, assign_group
from flarekd.labels import GROUPS


@pytest.mark.paper
@pytest.mark.parametrize("group", GROUPS)
def test_each_set_of_table_1_is_its_group(group):
    found = assign_group(GROUPS[group])
    assert (found.group, found.exact) == (group, True)
    assert found.annotated == tuple(sorted(GROUPS[group]))


@pytest.mark.parametrize(
    ("group", "organ"), [(2, "left_kidney"), (5, "left_kidney"), (6, "gallbladder")]
)
def test_a_group_that_may_be_anatomical_absence_says_so(group, organ):
    assert f"{organ} absent or not annotated?" in assign_group(GROUPS[group]).note


def test_what_a_group_says_whole():
    note = "gallbladder absent or not annotated? taken as not annotated"
    annotated = tuple(sorted(GROUPS[6]))
    assert assign_group(GROUPS[6]) == Assignment(6, annotated, True, (9,), note)
    assert assign_group({14}) == Assignment(1, (14,), True, (), "")


def test_a_set_of_no_group_gets_the_smallest_superset_as_a_proposal():
    note = (
        "no exact group; nearest is 2, without spleen, pancreas (absent, cut off or not annotated)"
    )
    assert assign_group({1, 2}) == Assignment(2, (1, 2), False, (3, 4), note)
    own = {8: frozenset({1, 2, 3, 4}), 9: frozenset({1, 2, 3})}
    assert assign_group({1, 2}, own).group == 9


def test_a_mixture_that_no_group_holds_has_no_group():
    lacking = (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13)
    note = "ids match no group, nor part of one"
    assert assign_group({5, 14}) == Assignment(None, (5, 14), False, lacking, note)


def test_an_empty_label_file_annotates_nothing():
    note = "label file is empty: treated as unlabelled"
    assert assign_group(()) == Assignment(None, (), False, (), note)


@pytest.mark.parametrize("present", [{15}, {0, 1}, {-1}])
def test_ids_that_are_no_class_are_refused(present):
    with pytest.raises(ValueError, match=r"not among 1\.\.14"):
        assign_group(present)


@given(st.sets(st.integers(1, 14)))
def test_annotated_is_always_exactly_what_is_present(present):
    found = assign_group(present)
    assert set(found.annotated) == present
    assert found.exact == (frozenset(present) in GROUPS.values())
    assert found.exact or found.note
    assert found.group is None or present <= GROUPS[found.group]
