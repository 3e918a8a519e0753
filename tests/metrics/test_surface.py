"""DSC, NSD and HD95 of two masks: hand-worked cases, and the published implementation as oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.evaluation import KINDS, PAIRS, corpus, published

from flarekd.metrics import dice, surface_dice, surfel_areas
from flarekd.metrics.surface import SurfacePair

# the oracle imports scipy by an old name
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

SPACING = (2.5, 0.7, 1.1)

# ---------------------------------------------------------------- hand-worked


def slab(*rows: int) -> np.ndarray:
    mask = np.zeros((12, 6, 5), bool)
    mask[list(rows)] = True
    return mask


def test_a_mask_against_itself_is_one():
    mask = slab(3, 4, 5)
    assert dice(mask, mask) == 1
    assert surface_dice(mask, mask, SPACING, 0.0) == 1


def test_two_empty_masks_have_no_score():
    empty = np.zeros((2, 3, 4), bool)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(surface_dice(empty, empty, SPACING, 1.0))


def test_one_empty_mask_scores_zero():
    mask, empty = slab(3), slab()
    assert dice(mask, empty) == 0
    assert surface_dice(mask, empty, SPACING, 1000.0) == 0
    assert surface_dice(empty, mask, SPACING, 1000.0) == 0


def test_dice_counts_the_common_voxels_twice():
    assert dice(slab(1, 2, 3), slab(3, 4)) == pytest.approx(2 / 5)


def test_surface_area_of_a_block_and_of_a_flat_face():
    areas = surfel_areas(SPACING)
    z, y, x = SPACING
    assert areas.shape == (256,)
    assert areas[0] == areas[255] == 0
    # the lower (z = 0) four voxels of the block: bits 0..3
    assert areas[0b00001111] == pytest.approx(y * x)
    assert areas[0b00110011] == pytest.approx(z * x)  # y = 0
    assert areas[0b01010101] == pytest.approx(z * y)  # x = 0
    # one voxel cuts off a corner: the triangle between three half edges
    corner = math.hypot(y * x, z * x, z * y) / 8
    assert [areas[1 << bit] for bit in range(8)] == pytest.approx([corner] * 8)
    # what two voxels that meet in no face cut off, and a voxel missing twice
    assert areas[0b10000001] == pytest.approx(2 * corner)
    assert areas[0b01111110] == pytest.approx(2 * corner)


def test_single_voxels_one_apart_are_close_only_within_the_distance():
    one, two = np.zeros((2, 3, 3, 4), bool)
    one[1, 1, 1] = two[1, 1, 2] = True
    # each voxel has 8 elements of equal area; 4 of them coincide, 4 lie one x step (1.1 mm) away
    assert surface_dice(one, two, SPACING, 1.0) == pytest.approx(0.5)
    assert surface_dice(one, two, SPACING, 1.1) == 1
    assert dice(one, two) == 0


def test_a_cube_shifted_by_one_voxel_loses_what_is_farther_than_the_tolerance():
    cube = np.zeros((8, 8, 8), bool)
    cube[2:5, 2:5, 2:5] = True
    shifted = np.roll(cube, 1, axis=0)
    assert dice(cube, shifted) == pytest.approx(2 / 3)
    assert surface_dice(cube, shifted, (1, 1, 1), 1.0) == 1
    # at tolerance 0: 4 faces of 3x3 voxels; of the 4 layers of corners along z the common 3 count
    areas = surfel_areas((1, 1, 1))
    corner, edge, face = areas[1], areas[3], areas[15]
    cap = 4 * corner + 8 * edge + 4 * face
    side = 4 * edge + 8 * face
    total = 2 * cap + 2 * side
    # the upper cap of the one lies in a side layer of the other: its rim coincides, its middle not
    rim = 4 * corner + 8 * edge
    assert surface_dice(cube, shifted, (1, 1, 1), 0.0) == pytest.approx((2 * side + rim) / total)


def test_a_distance_equal_to_the_tolerance_is_close_in_spite_of_rounding():
    # 0.8 and 0.6: 1.6² + 1.2² = 2², and ten steps of 0.1 far from the origin are 1 mm
    for spacing, step, tolerance in (
        ((0.6, 0.8, 3.0), (2, 2, 0), 2.0),
        ((0.1, 3, 3), (10, 0, 0), 1),
    ):
        one = np.zeros((80, 8, 8), bool)
        one[60, 3, 3] = True
        two = np.roll(one, step, axis=(0, 1, 2))
        assert surface_dice(one, two, spacing, tolerance) == 1
        assert surface_dice(one, two, spacing, tolerance - 1e-3) < 1


def test_two_slabs_lie_their_distance_apart():
    near, far = (
        slab(2, 3),
        slab(6, 7),
    )  # faces 4 slices, 10 mm, apart; the inner ones 2 slices, 5 mm
    assert surface_dice(near, far, SPACING, 4.99) == 0
    assert 0 < surface_dice(near, far, SPACING, 5.0) < 1
    assert surface_dice(near, far, SPACING, 10.0) == 1


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) and \(2, 2, 3\)"):
        surface_dice(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), SPACING, 1.0)


def test_hd95_of_two_slabs_is_the_distance_of_their_outer_faces():
    near, far = SurfacePair(slab(2, 3), slab(6, 7), SPACING), SurfacePair(slab(2), slab(7), SPACING)
    assert near.hausdorff_mm() == 10.0
    assert far.hausdorff_mm() == 12.5
    # the inner faces alone, a tenth of the area, lie nearer
    assert near.hausdorff_mm(0.1) == 5.0


def test_hd95_passes_over_a_speck_far_away():
    one = np.zeros((20, 20, 40), bool)
    one[5:15, 5:15, 5:15] = True
    two = one.copy()
    two[1, 1, 38] = True
    pair = SurfacePair(two, one, (1, 1, 1))
    assert pair.hausdorff_mm() == 0
    assert pair.hausdorff_mm(1.0) > 23


def test_there_is_no_distance_to_nothing():
    for masks in ((slab(), slab()), (slab(3), slab()), (slab(), slab(3))):
        assert math.isnan(SurfacePair(*masks, SPACING).hausdorff_mm())


# ---------------------------------------------------------------- the published implementation


def test_every_neighbour_code_has_the_published_area():
    from surface_distance import lookup_tables

    published = lookup_tables.create_table_neighbour_code_to_surface_area(SPACING)
    # the published code counts the same voxels from the highest bit down
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(surfel_areas(SPACING), published[mirrored], rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def pairs():
    return list(corpus())


def test_the_corpus_holds_what_it_is_for(pairs):
    assert len(pairs) == PAIRS == 300
    assert {pair.kind for pair in pairs} == set(KINDS)
    empties = [pair.prediction.any() + pair.reference.any() for pair in pairs]
    assert min(empties.count(full) for full in (0, 1)) >= 37
    assert sum(len(set(pair.spacing_zyx)) > 1 for pair in pairs) > 200


def test_every_pair_scores_as_the_published_implementation_does(pairs):
    for number, pair in enumerate(pairs):
        masks = pair.prediction, pair.reference
        actual = dice(*masks), surface_dice(*masks, pair.spacing_zyx, pair.tolerance_mm)
        expected = published(*masks, pair.spacing_zyx, pair.tolerance_mm)
        named = f"{number}: {pair.kind}"
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9, err_msg=named)


def test_hd95_is_the_published_one_however_far_was_searched_before(pairs):
    import surface_distance

    measured = 0
    for pair in pairs:
        masks = pair.prediction, pair.reference
        actual = []
        for searched_mm in (None, 0.0, 2.0):
            surfaces = SurfacePair(*masks, pair.spacing_zyx)
            if searched_mm is not None:
                surfaces.dice(searched_mm)
            actual.append(surfaces.hausdorff_mm())
        if not (masks[0].any() and masks[1].any()):
            assert all(math.isnan(distance) for distance in actual)
            continue
        assert len(set(actual)) == 1
        distances = surface_distance.compute_surface_distances(*masks, pair.spacing_zyx)
        # where 95 % falls between two elements, rounding decides which of both the oracle takes
        low, high = (
            surface_distance.compute_robust_hausdorff(distances, percent)
            for percent in (95 - 1e-7, 95 + 1e-7)
        )
        assert low - 1e-9 <= actual[0] <= high + 1e-9
        measured += low == high
    assert measured > 150


@pytest.mark.parametrize("spacing_zyx", [(5.0, 0.8, 0.8), (1.0, 1.0, 1.0)])
def test_any_share_of_a_prediction_scattered_far_and_wide_is_the_published_one(spacing_zyx):
    """Most elements are told by their cells to lie below or above, and are not searched."""
    import surface_distance

    reference = np.zeros((24, 50, 60), bool)
    reference[3:8, 10:22, 8:25] = True
    prediction = np.random.default_rng(0).random(reference.shape) < 0.02
    distances = surface_distance.compute_surface_distances(prediction, reference, spacing_zyx)
    for share in (0.01, 0.2, 0.5, 0.8, 0.95, 0.999, 1.0):
        low, high = (
            surface_distance.compute_robust_hausdorff(distances, min(100 * share + near, 100))
            for near in (-1e-7, 1e-7)
        )
        actual = SurfacePair(prediction, reference, spacing_zyx).hausdorff_mm(share)
        assert low - 1e-9 <= actual <= high + 1e-9


def test_other_tolerances_can_be_asked_for_in_any_order(pairs):
    for pair in pairs[:40]:
        masks = pair.prediction, pair.reference
        surfaces = SurfacePair(*masks, pair.spacing_zyx)
        for tolerance_mm in (2.0, 0.0, 5.0, 1.0):
            expected = surface_dice(*masks, pair.spacing_zyx, tolerance_mm)
            assert surfaces.dice(tolerance_mm) == pytest.approx(expected, abs=1e-12, nan_ok=True)
