import pytest

from flarekd.labels import GROUP_COUNTS, GROUPS, LABELS, NAMES, ORGANS, TUMOR, color_of


@pytest.mark.paper
def test_fourteen_classes_stand_in_the_order_of_table_1():
    shorts = "Liver RK Spl Pan Aor IVC RAG LAG Gall Eso Sto Duo LK Tumor"
    assert [label.short for label in LABELS] == shorts.split()
    assert [label.id for label in LABELS] == list(range(1, 15))
    assert NAMES[TUMOR] == "tumor"
    assert tuple(range(1, 14)) == ORGANS


@pytest.mark.paper
def test_tolerances_are_those_of_the_official_scorer():
    assert [label.tolerance_mm for label in LABELS] == [5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3, 2]


@pytest.mark.paper
def test_group_counts_are_table_1():
    assert GROUP_COUNTS == {1: 888, 2: 6, 3: 447, 4: 609, 5: 4, 6: 24, 7: 222}
    assert sum(GROUP_COUNTS.values()) == 2200
    assert sum(GROUP_COUNTS[g] for g, ids in GROUPS.items() if TUMOR in ids) == 1497
    missing = {g: set(ORGANS) - ids for g, ids in GROUPS.items()}
    assert missing[1] == set(range(1, 14))
    assert missing[2] == set(range(5, 14))
    assert missing[3] == missing[4] == set(range(5, 13))
    assert missing[5] == {13}
    assert missing[6] == {9}
    assert missing[7] == set()


def test_a_colour_goes_by_the_name_and_else_tells_ids_apart():
    assert color_of(3, "liver") == LABELS[0].color
    others = [color_of(label, "other") for label in range(1, 30)]
    assert len(set(others)) == len(others)
    assert all(0 <= channel <= 255 for color in others for channel in color)
