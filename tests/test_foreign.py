import numpy as np
import pytest

from flarekd.foreign import BOTH, DATASETS, IdMap, id_map, our_id, relabel
from flarekd.labels import IGNORE, LABELS

RIGHT, LEFT = 2, 13


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((label.name, label.id) for label in LABELS),
        ("Kidney_Right", 2),
        ("left adrenal gland", 8),
        ("adrenal-gland-left", 8),
        ("postcava", 6),
        ("inferior_vena_cava", 6),
        ("gall bladder", 9),
        ("oesophagus", 10),
        ("arota", 5),
        ("cancer", 14),
        ("Tumour", 14),
        ("background", 0),
        ("ignore", IGNORE),
        ("kidney", BOTH),
    ],
)
def test_a_class_is_known_by_any_of_its_names(name, ours):
    assert our_id(name) == ours


@pytest.mark.parametrize("name", ["bladder", "livr", ""])
def test_a_name_that_is_no_class_is_refused(name):
    with pytest.raises(ValueError, match="is none of background, liver"):
        our_id(name)


@pytest.mark.parametrize(
    ("name", "ids", "annotated"),
    [
        ("kits19", {1: BOTH, 2: 14}, {2, 13, 14}),
        ("kits23", {1: BOTH, 2: 14, 3: BOTH}, {2, 13, 14}),
        ("lits", {1: 1, 2: 14}, {1, 14}),
        ("msd-liver", {1: 1, 2: 14}, {1, 14}),
        ("msd-pancreas", {1: 4, 2: 14}, {4, 14}),
        ("msd-hepaticvessel", {1: 0, 2: 14}, {14}),
        ("msd-spleen", {1: 3}, {3}),
        ("msd-colon", {1: 14}, {14}),
        (
            "totalsegmentator",
            {1: 3, 2: 2, 3: 13, 4: 9, 5: 1, 6: 11, 7: 4, 8: 7, 9: 8, 15: 10, 19: 12}
            | {23: 13, 24: 2, 52: 5, 63: 6},
            set(range(1, 14)),
        ),
        (
            "totalsegmentator-v1",
            {1: 3, 2: 2, 3: 13, 4: 9, 5: 1, 6: 11, 7: 5, 8: 6, 10: 4, 11: 7, 12: 8, 42: 10, 56: 12},
            set(range(1, 14)),
        ),
    ],
)
def test_the_ids_of_published_data_sets(name, ids, annotated):
    assert dict(DATASETS[name].ids) == ids
    assert DATASETS[name].annotated == annotated


def test_ids_are_turned_into_ours_and_the_rest_is_background():
    theirs = np.asarray([[[0, 5, 1, 63, 20, 117]]], np.uint8)
    ours, doubt = relabel(theirs, DATASETS["totalsegmentator"], 1.0)
    np.testing.assert_array_equal(ours, [[[0, 1, 3, 6, 0, 0]]])
    assert (ours.dtype, doubt) == (np.uint8, "")


def test_ids_that_a_map_does_not_name_are_told_unless_it_has_more_than_we_want():
    assert DATASETS["lits"].unknown({0: 90, 1: 5, 2: 3, 7: 1}) == {7: 1}
    assert DATASETS["totalsegmentator"].unknown({0: 90, 110: 5}) == {}


def test_an_id_beyond_a_byte_is_refused():
    with pytest.raises(ValueError, match=r"ids \[300\] lie outside 0..255"):
        id_map("own", {300: "liver"})


def kidneys(*columns, width=100):
    """A scan of `width` columns of 2 mm, with a block of voxels of id 1 about each column."""
    labels = np.zeros((4, 6, width), np.uint8)
    for column in columns:
        labels[1:3, 2:5, column - 4 : column + 5] = 1
    return labels


KITS = DATASETS["kits19"]


def test_the_kidney_at_larger_x_is_the_left_one():
    ours, doubt = relabel(kidneys(25, 72), KITS, 2.0)
    assert set(np.unique(ours[..., 21:30])) == {0, RIGHT}
    assert set(np.unique(ours[..., 68:77])) == {0, LEFT}
    assert (ours > 0).sum() == (kidneys(25, 72) > 0).sum()
    assert doubt == ""


def test_two_kidneys_are_told_apart_where_the_patient_lies_to_one_side():
    ours, doubt = relabel(kidneys(10, 45), KITS, 2.0)  # both right of the middle of the scan
    assert (ours[2, 3, 10], ours[2, 3, 45], doubt) == (RIGHT, LEFT, "")


@pytest.mark.parametrize(("column", "side"), [(25, RIGHT), (75, LEFT)])
def test_a_single_kidney_is_of_the_side_of_the_scan_that_it_lies_on(column, side):
    ours, doubt = relabel(kidneys(column), KITS, 2.0)
    assert set(np.unique(ours)) == {0, side}
    assert doubt == ""


def test_pieces_that_a_tumour_cuts_off_keep_their_side_and_the_tumour_is_tumour():
    labels = kidneys(25, 72)
    labels[..., 72] = np.where(labels[..., 72] == 1, 2, 0)  # cuts the left one in two
    ours, _ = relabel(labels, KITS, 2.0)
    assert set(np.unique(ours[..., 66:80])) == {0, LEFT, 14}
    assert (ours == 14).sum() == 6


def test_a_kidney_in_the_middle_of_the_scan_is_in_doubt():
    _, doubt = relabel(kidneys(52), KITS, 2.0)
    assert "not sure" in doubt


def test_a_map_of_kidneys_without_kidneys_does_nothing():
    ours, doubt = relabel(np.zeros((2, 2, 2), np.uint8), IdMap("own", ((1, BOTH),)), 1.0)
    assert not ours.any()
    assert doubt == ""
