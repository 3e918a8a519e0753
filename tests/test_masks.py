import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.foreign import BOTH
from flarekd.labels import IGNORE
from flarekd.masks import Merger

LIVER, RIGHT, SPLEEN, LEFT, TUMOR = 1, 2, 3, 13, 14


def merge(shape, masks):
    merger = Merger(shape, [ours for ours, _ in masks])
    for ours, mask in masks:
        merger.add(mask.astype(np.uint8), ours)
    return merger.merge(1.0)


def row(*voxels, size=20):
    mask = np.zeros((1, 1, size), np.uint8)
    mask[0, 0, list(voxels)] = 1
    return mask


def test_tumours_lie_over_organs_and_small_organs_over_large_ones():
    liver, spleen, tumor = row(*range(12)), row(11, 12, 13), row(0, 1)
    labels, overlaps, doubts = merge((1, 1, 20), [(SPLEEN, spleen), (TUMOR, tumor), (LIVER, liver)])
    assert labels[0, 0].tolist() == [14, 14, *[1] * 9, 3, 3, 3, *[0] * 6]
    assert overlaps == {("tumor", "liver"): 2, ("spleen", "liver"): 1}
    assert doubts == []  # a twelfth of the liver


def test_an_organ_that_covers_a_tenth_of_another_is_for_a_person():
    labels, overlaps, doubts = merge((1, 1, 20), [(LIVER, row(*range(10))), (SPLEEN, row(9, 10))])
    assert labels[0, 0, 9] == SPLEEN
    assert overlaps == {("spleen", "liver"): 1}
    assert doubts == ["the mask of spleen lies over that of liver"]


def test_masks_of_one_class_are_united_and_what_nobody_annotated_goes_over_all():
    kidney, cyst, unseen = row(0, 1), row(1, 2), row(2, 3)
    labels, overlaps, _ = merge((1, 1, 20), [(RIGHT, kidney), (RIGHT, cyst), (IGNORE, unseen)])
    assert labels[0, 0, :5].tolist() == [2, 2, IGNORE, IGNORE, 0]
    assert overlaps == {("ignore", "right_kidney"): 1}


def test_kidneys_in_one_mask_are_told_apart_by_their_side():
    kidneys = np.zeros((1, 4, 200), np.uint8)
    kidneys[:, :, 20:40] = kidneys[:, :, 160:180] = 1
    labels, _, doubts = merge(kidneys.shape, [(BOTH, kidneys)])
    assert (labels[0, 0, 30], labels[0, 0, 170]) == (RIGHT, LEFT)
    assert doubts == []


@given(st.integers(0, 2**32 - 1))
def test_a_voxel_is_what_a_loop_over_masks_makes_of_it(seed):
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.arange(1, 15), rng.integers(1, 6), replace=False).tolist()
    masks = [(c, rng.random((3, 4, 5)) < rng.random()) for c in classes]
    labels, overlaps, _ = merge((3, 4, 5), masks)
    # the largest first, then over it the smaller ones, tumours last
    expected = np.zeros((3, 4, 5), np.uint8)
    for ours, mask in sorted(masks, key=lambda one: (one[0] != TUMOR, one[1].sum(), one[0]))[::-1]:
        expected[mask] = ours
    assert np.array_equal(labels, expected)
    several = sum(mask.astype(int) for _, mask in masks)
    assert sum(overlaps.values()) == int((several - 1).clip(0).sum())


def test_more_than_sixteen_classes_are_not_asked_for():
    every = [*range(1, 15), BOTH, IGNORE]
    merger = Merger((1, 1, 1), every)
    merger.add(np.ones((1, 1, 1), np.uint8), BOTH)
    with pytest.raises(ValueError, match="is not in list"):
        merger.add(np.ones((1, 1, 1), np.uint8), 99)
