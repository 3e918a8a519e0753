"""Where classes and lesions lie, against masks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from flarekd.imaging.census import (
    MOST_LESION_VOXELS,
    count_classes,
    find_lesions,
    kept_count,
)

SHAPE = (9, 20, 24)


def blobs():
    """Three lesions: a diagonal of corners, a box, and one voxel a knight's move away from it."""
    mask = np.zeros(SHAPE, bool)
    for step in range(3):
        mask[step, step, step] = True
    mask[4:8, 5:15, 6:16] = True
    mask[4, 17, 10] = True
    return mask


def split(found):
    kept = [kept_count(count) for count in found.counts.tolist()]
    return np.split(found.kept, np.cumsum(kept)[:-1])


def test_voxels_that_share_a_corner_are_one_lesion():
    found = find_lesions(blobs())
    assert found.counts.tolist() == [3, 400, 1]
    diagonal, box, single = split(found)
    steps = [np.ravel_multi_index((step, step, step), SHAPE) for step in range(3)]
    assert diagonal.tolist() == steps
    assert single.tolist() == [np.ravel_multi_index((4, 17, 10), SHAPE)]
    z, y, x = np.unravel_index(box, SHAPE)
    assert (z.min() >= 4) & (z.max() < 8) & (y.min() >= 5) & (y.max() < 15)
    assert len(set(box.tolist())) == MOST_LESION_VOXELS
    # spread over all of it
    assert set(z.tolist()) == {4, 5, 6, 7}
    assert abs(x.mean() - 10.5) < 2


def test_all_lesions_lie_on_the_mask_wherever_they_are():
    mask = np.random.default_rng(3).random(SHAPE) < 0.02
    found = find_lesions(mask)
    assert found.counts.sum() == mask.sum()
    small = [part for part in split(found) if part.size < MOST_LESION_VOXELS]
    assert mask.ravel()[np.concatenate(small)].all()


def test_without_tumour_there_is_no_lesion():
    found = find_lesions(np.zeros(SHAPE, bool))
    assert (found.counts.size, found.kept.size) == (0, 0)


def test_classes_are_counted_whole_however_few_are_kept():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[:20] = 3
    labels[25, 4, 5:9] = 14
    found = count_classes(labels)
    assert list(found) == [3, 14]
    assert (found[3].count, found[3].kept.size) == (18_000, 10_000)
    assert found[14].kept.tolist() == np.flatnonzero(labels == 14).tolist()
    assert (labels.ravel()[found[3].kept] == 3).all()
    assert (np.diff(found[3].kept.astype(np.int64)) > 0).all()


def test_more_voxels_than_an_index_counts_are_refused():
    huge = np.broadcast_to(np.zeros(1, np.uint8), (2**11, 2**11, 2**11))
    with pytest.raises(ValueError, match="more voxels than a store's index counts"):
        count_classes(huge)


def test_what_is_to_be_ignored_is_no_class():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1], labels[2] = 3, 255
    assert list(count_classes(labels)) == [3]
