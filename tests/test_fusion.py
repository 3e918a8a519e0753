import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from flarekd.fusion import (
    COMBINATIONS,
    HUMAN,
    IGNORED,
    NOBODY,
    PSEUDO,
    TEACHER,
    contradictions,
    count,
    fuse,
    fuse_simple,
    look_up,
    rules,
    thick,
)
from flarekd.labels import GROUPS

GROUP_3 = GROUPS[3]
GROUP_4 = GROUPS[4]


def voxel(function, *values, **more):
    arrays = [np.full((1, 1, 1), value, np.uint8) for value in values]
    arrays[1] = arrays[1].astype(bool)
    return int(function(*arrays, **more)[0, 0, 0])


@pytest.mark.paper
@pytest.mark.parametrize(
    ("partial", "tumor", "organs", "annotated", "fused"),
    [
        (0, 0, 0, GROUP_3, 0),
        (1, 0, 2, GROUP_3, 1),
        (1, 1, 1, GROUP_3, 14),
        (1, 1, 1, GROUP_4, 1),
        (0, 1, 5, GROUP_3, 14),
        (0, 0, 1, GROUP_3, 0),
        (0, 0, 5, GROUP_3, 5),
        (14, 0, 9, GROUP_4, 14),
        (0, 1, 9, GROUP_4, 9),  # group 4 vouches for tumours: a pseudo tumour is not added
        (0, 0, 2, (), 2),  # Eq. 5
        (0, 1, 0, (), 14),
        (0, 1, 1, (), 14),
    ],
)
def test_truth_table_of_equations_3_4_and_5(partial, tumor, organs, annotated, fused):
    assert voxel(fuse, partial, tumor, organs, annotated=annotated) == fused


@pytest.mark.paper
@pytest.mark.parametrize(
    ("partial", "tumor", "organs", "fused"),
    [(1, 1, 2, 1), (0, 1, 2, 14), (0, 0, 2, 2), (14, 0, 2, 14), (0, 0, 0, 0)],
)
def test_truth_table_of_simple_fusion(partial, tumor, organs, fused):
    assert voxel(fuse_simple, partial, tumor, organs) == fused


def oracle(partial, tumor, organs, annotated):
    out = np.zeros_like(partial)
    for index in np.ndindex(partial.shape):
        first = partial[index]
        if tumor[index] and 14 not in annotated:
            first = 14
        if first:
            out[index] = first
        elif organs[index] not in annotated:
            out[index] = organs[index]
    return out


@pytest.mark.parametrize("annotated", [GROUP_3, GROUP_4, range(1, 15)])
def test_simple_fusion_does_not_ask_what_was_annotated(annotated):
    asked, unasked = rules(annotated, "simple"), rules((), "simple")
    np.testing.assert_array_equal(asked.labels, unasked.labels)
    np.testing.assert_array_equal(asked.sources, unasked.sources)
    assert asked.labels.dtype == asked.sources.dtype == np.uint8


@pytest.mark.paper
def test_what_was_drawn_in_part_is_kept_and_the_rest_of_it_is_filled():
    # liver and tumours drawn and not vouched for: Eq. 3 and 4 ask θ_p ≠ 0, and λ only for θ_o
    partial = np.array([[[1, 1, 0, 14, 14, 0, 0, 2]]], np.uint8)
    tumor = np.array([[[0, 0, 0, 1, 0, 1, 0, 0]]], bool)
    organs = np.array([[[1, 3, 1, 0, 1, 0, 2, 1]]], np.uint8)
    how = rules({2})
    assert look_up(how.labels, partial, tumor, organs).tolist() == [[[1, 1, 1, 14, 14, 14, 0, 2]]]
    sources = look_up(how.sources, partial, tumor, organs)
    assert sources.tolist() == [[[1, 1, 3, 2, 1, 2, 0, 1]]]
    against = look_up(contradictions({2}), partial, tumor, organs)
    assert against.tolist() == [[[False, True, False, False, False, False, True, True]]]


SHAPE = (2, 3, 4)


@given(
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14)),
    hnp.arrays(np.bool_, SHAPE),
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 13)),
    st.sets(st.integers(1, 14)),
)
def test_fusion_equals_the_equations_voxel_by_voxel(partial, tumor, organs, annotated):
    before = partial.copy()
    fused = fuse(partial, tumor, organs, annotated)
    np.testing.assert_array_equal(fused, oracle(partial, tumor, organs, annotated))
    np.testing.assert_array_equal(partial, before)
    assert fused.dtype == np.uint8


@given(
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14)),
    hnp.arrays(np.bool_, SHAPE),
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 13)),
)
def test_both_fusions_agree_on_unlabelled_cases(partial, tumor, organs):
    empty = np.zeros_like(partial)
    np.testing.assert_array_equal(fuse(empty, tumor, organs, ()), fuse_simple(empty, tumor, organs))


def test_shapes_that_differ_are_refused():
    label, tumor = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 2), bool)
    what = r"\(1, 2, 3\), tumour \(1, 2, 2\) and organ pseudo-label \(1, 2, 3\) differ in shape"
    with pytest.raises(ValueError, match=what):
        fuse(label, tumor, label, ())
    with pytest.raises(ValueError, match="differ in shape"):
        fuse(label, label.astype(bool), label[:, :1], ())


def test_ids_beyond_the_classes_are_refused():
    label, tumor = np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), bool)
    with pytest.raises(ValueError, match=r"^the organ pseudo-label holds id 14, beyond 0..13$"):
        fuse(label, tumor, label + 14, ())
    with pytest.raises(ValueError, match=r"^the partial label holds id 15, beyond 0..14$"):
        fuse_simple(label + 15, tumor, label)


@given(
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14)),
    hnp.arrays(np.bool_, SHAPE),
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 13)),
    st.sets(st.integers(1, 14)),
    st.sampled_from(["paper", "simple"]),
)
def test_every_voxel_comes_from_a_source_that_says_so(partial, tumor, organs, annotated, strategy):
    how = rules(annotated, strategy)
    fused = look_up(how.labels, partial, tumor, organs)
    sources = look_up(how.sources, partial, tumor, organs)
    assert np.array_equal(sources == NOBODY, fused == 0)
    assert np.array_equal(fused[sources == HUMAN], partial[sources == HUMAN])
    assert np.array_equal(fused[sources == PSEUDO], organs[sources == PSEUDO])
    assert (fused[sources == TEACHER] == 14).all()
    assert tumor[sources == TEACHER].all()
    assert not (sources == IGNORED).any()


@given(
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 14)),
    hnp.arrays(np.bool_, SHAPE),
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 13)),
)
def test_combinations_are_counted_one_by_one(partial, tumor, organs):
    expected = np.zeros(COMBINATIONS, np.int64)
    for index in np.ndindex(SHAPE):
        expected[partial[index], int(tumor[index]), organs[index]] += 1
    np.testing.assert_array_equal(count(partial, tumor, organs), expected)


@pytest.mark.parametrize(
    ("partial", "tumor", "organs", "expected"),
    [
        (1, 0, 1, False),
        (1, 0, 2, True),
        (1, 0, 0, True),  # drawn, and the pseudo-label has nothing
        (0, 0, 1, True),  # the pseudo-label has liver where the person drew none
        (0, 0, 5, False),  # aorta, which nobody annotated
        (0, 0, 0, False),
        (14, 0, 1, False),  # a tumour over its organ is no contradiction
        (1, 1, 2, False),  # the tumour goes over both
    ],
)
def test_what_contradicts_what(partial, tumor, organs, expected):
    found = contradictions(GROUP_3)
    assert found.dtype == bool
    assert found[partial, tumor, organs] == expected


def ball(radius_mm, spacing):
    steps = np.indices((7, 7, 7)) - 3
    return (steps**2 * np.reshape(spacing, (3, 1, 1, 1)) ** 2).sum(0) <= radius_mm**2


@given(hnp.arrays(np.bool_, (5, 9, 12), elements=st.integers(0, 8).map(bool)))
def test_thick_parts_are_the_union_of_the_balls_that_fit(mask):
    spacing, radius = (3.0, 1.0, 1.5), 2.5
    oracle = ndimage.binary_opening(np.pad(mask, 3), ball(radius, spacing))[3:-3, 3:-3, 3:-3]
    np.testing.assert_array_equal(thick(mask, spacing, radius), oracle)


def test_a_rim_is_not_thick_and_a_lump_is():
    mask = np.zeros((10, 20, 20), bool)
    mask[:, 3, :] = True  # a rim of one voxel
    mask[2:9, 8:17, 8:17] = True
    found = thick(mask, (1.0, 1.0, 1.0), 3.0)
    assert not found[:, 3].any()
    assert found[5, 12, 12]
    assert not found[2, 8, 8]  # a ball does not reach into a corner
