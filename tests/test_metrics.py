"""DSC and NSD: hand-worked cases, the published implementation as oracle, FLARE's rules."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import ndimage

from flarekd.labels import BY_ID, LABELS, NAMES, ORGANS
from flarekd.metrics import (
    TUBES,
    ClassScore,
    dice,
    score_case,
    summarize,
    surface_dice,
    surfel_areas,
)

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


# ---------------------------------------------------------------- the published implementation


def oracle(prediction, reference, spacing, tolerance):
    import surface_distance

    if not (prediction.any() or reference.any()):
        return math.nan, math.nan
    if not (prediction.any() and reference.any()):
        return 0.0, 0.0  # every distance is infinite; 0.1 says so by a name numpy 2 took away
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return (
        surface_distance.compute_dice_coefficient(reference, prediction),
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance),
    )


def test_every_neighbour_code_has_the_published_area():
    from surface_distance import lookup_tables

    published = lookup_tables.create_table_neighbour_code_to_surface_area(SPACING)
    # the published code counts the same voxels from the highest bit down
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(surfel_areas(SPACING), published[mirrored], rtol=0, atol=1e-12)


def random_pair(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(int(n) for n in generator.integers(1, 18, 3))
    smooth = generator.uniform(0, 2.5)
    noise = ndimage.gaussian_filter(generator.normal(size=(3, *shape)), (0, smooth, smooth, smooth))
    noise /= noise.std() + 1e-9
    likeness = generator.uniform(0, 1)
    level = generator.uniform(-1, 2)
    one = noise[0] > level
    two = likeness * noise[0] + (1 - likeness) * noise[1] > level
    kind = generator.integers(8)
    if kind == 0:
        one[:] = False
    elif kind == 1:
        two[:] = False
    elif kind == 2:
        keep = generator.integers(shape[0])
        one[np.arange(shape[0]) != keep] = False
    return one, two


@pytest.mark.parametrize("seed", range(120))
def test_random_masks_score_as_the_published_implementation_does(seed):
    generator = np.random.default_rng(seed)
    one, two = random_pair(generator)
    spacing = tuple(generator.choice([0.5, 0.7, 0.8, 1.0, 2.5, 5.0], 3))
    tolerance = float(generator.choice([0.0, 1.0, 2.0, 3.0, 5.0, 7.0]))
    expected = oracle(one, two, spacing, tolerance)
    actual = dice(one, two), surface_dice(one, two, spacing, tolerance)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9)


def patient() -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """A 300×512×512 label map of 14 organ-sized ellipsoids, and a prediction about 2 voxels off."""
    generator = np.random.default_rng(0)
    spacing = (1.0, 0.75, 0.75)
    centers = [(190, 200, 150), (130, 300, 170), (200, 300, 400), (150, 240, 270), (150, 300, 270)]
    centers += [(150, 290, 230), (190, 290, 200), (190, 290, 320), (140, 200, 180), (230, 290, 260)]
    centers += [(190, 200, 340), (130, 240, 210), (130, 300, 360), (190, 180, 120)]
    radii_mm = [(85, 70, 90), (50, 28, 28), (55, 35, 30), (20, 18, 60), (130, 11, 11)]
    radii_mm += [(130, 12, 12), (12, 5, 10), (12, 5, 10), (25, 15, 15), (60, 9, 9)]
    radii_mm += [(60, 40, 45), (35, 25, 25), (50, 28, 28), (20, 20, 20)]
    maps = np.zeros((2, 300, 512, 512), np.uint8)
    for label, (center, radius_mm) in enumerate(zip(centers, radii_mm, strict=True), start=1):
        radius = np.divide(radius_mm, spacing)
        low = np.maximum(np.subtract(center, radius + 8).astype(int), 0)
        high = np.minimum(np.add(center, radius + 8).astype(int), maps.shape[1:])
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = ((g - c) / r for g, c, r in zip(np.ogrid[box], center, radius, strict=True))
        for one, amplitude in zip(maps, (0.05, 0.1), strict=True):
            coarse = generator.normal(size=[max(2, n // 12) for n in high - low])
            noise = ndimage.zoom(coarse, np.divide(high - low, coarse.shape), order=1)
            one[box][z**2 + y**2 + x**2 + amplitude * noise < 1] = label
    return maps[0], maps[1], spacing


@pytest.mark.slow
def test_a_whole_patient_is_scored_several_times_faster_than_by_the_published_code(capsys):
    reference, prediction, spacing = patient()
    surfel_areas(spacing)  # the table is made once a process
    start = time.perf_counter()
    scores = score_case(prediction, reference, spacing, "corrected")
    ours_s = time.perf_counter() - start
    start = time.perf_counter()
    published = []
    for label in LABELS:
        masks = prediction == label.id, reference == label.id
        if label.id in TUBES:
            slices = np.flatnonzero(masks[1].any(axis=(1, 2)))
            masks = tuple(mask[slices[0] : slices[-1] + 1] for mask in masks)
        published.append(oracle(*masks, spacing, label.tolerance_mm))
    theirs_s = time.perf_counter() - start
    np.testing.assert_allclose([(s.dsc, s.nsd) for s in scores], published, rtol=0, atol=1e-9)
    with capsys.disabled():
        print(f"\nflarekd {ours_s:.2f} s, surface-distance {theirs_s:.2f} s:", end=" ")  # noqa: T201
        print(f"{theirs_s / ours_s:.1f} times faster")  # noqa: T201
    assert theirs_s > 4 * ours_s


# ---------------------------------------------------------------- FLARE's rules


def volume(**boxes: tuple[slice, slice, slice]) -> np.ndarray:
    labels = np.zeros((20, 16, 14), np.uint8)
    for name, box in boxes.items():
        labels[box] = NAMES.index(name)
    return labels


def block(z: slice, y: slice = slice(3, 9), x: slice = slice(4, 9)) -> tuple[slice, ...]:
    return z, y, x


def score(prediction, reference, protocol="flare23"):
    return {s.name: s for s in score_case(prediction, reference, SPACING, protocol)}


@pytest.mark.parametrize("protocol", ["flare23", "corrected"])
def test_both_empty_is_one_and_exactly_one_empty_is_zero(protocol):
    scores = score(volume(spleen=block(slice(2, 5))), volume(liver=block(slice(8, 12))), protocol)
    assert list(scores) == list(NAMES[1:])
    assert (scores["spleen"].dsc, scores["spleen"].nsd) == (0, 0)
    assert (scores["liver"].dsc, scores["liver"].nsd) == (0, 0)
    assert all(
        (s.dsc, s.nsd) == (1, 1) for name, s in scores.items() if name not in ("liver", "spleen")
    )


@pytest.mark.parametrize("name", ["aorta", "ivc", "esophagus"])
def test_a_tube_is_scored_only_where_the_reference_has_it(name):
    reference = volume(**{name: block(slice(5, 10))})
    long = volume(**{name: block(slice(1, 19))})
    for protocol in ("flare23", "corrected"):
        scored = score(long, reference, protocol)[name]
        assert (scored.dsc, scored.nsd) == (1, 1)
    other = score(volume(liver=block(slice(1, 19))), volume(liver=block(slice(5, 10))))["liver"]
    assert other.dsc == round(2 * 5 / 23, 4)


def test_the_last_reference_slice_of_a_tube_counts_only_in_the_corrected_protocol():
    reference = volume(aorta=block(slice(5, 10)))
    short = volume(aorta=block(slice(5, 9)))
    assert score(short, reference)["aorta"].dsc == 1
    assert score(short, reference, "corrected")["aorta"].dsc == pytest.approx(8 / 9)
    first_missing = volume(aorta=block(slice(6, 10)))
    assert score(first_missing, reference)["aorta"].dsc == round(6 / 7, 4)


def test_a_tube_outside_the_reference_slices_is_zero():
    reference, prediction = volume(ivc=block(slice(5, 10))), volume(ivc=block(slice(11, 15)))
    for protocol in ("flare23", "corrected"):
        scored = score(prediction, reference, protocol)["ivc"]
        assert (scored.dsc, scored.nsd) == (0, 0)


def test_a_tube_of_one_reference_slice_is_undefined_as_in_the_official_arithmetic():
    reference, prediction = volume(aorta=block(slice(5, 6))), volume(aorta=block(slice(4, 9)))
    scored = score(prediction, reference)["aorta"]
    assert math.isnan(scored.dsc)
    assert math.isnan(scored.nsd)
    assert score(prediction, reference, "corrected")["aorta"].dsc == 1
    # and without a prediction it is exactly one empty
    assert score(volume(), reference)["aorta"].dsc == 0


def test_below_a_dsc_of_a_fifth_the_official_nsd_is_zero():
    reference = volume(tumor=block(slice(2, 12)))
    prediction = volume(tumor=block(slice(11, 20)))  # one common slice of 10 and 9: DSC 2/19
    official, corrected = (
        score(prediction, reference, p)["tumor"] for p in ("flare23", "corrected")
    )
    assert official.dsc == round(2 / 19, 4)
    assert official.nsd == 0
    assert corrected.dsc == pytest.approx(2 / 19)
    assert corrected.nsd > 0.05


def test_only_the_official_protocol_rounds_to_four_digits():
    reference, prediction = volume(liver=block(slice(2, 9))), volume(liver=block(slice(4, 16)))
    official, corrected = (
        score(prediction, reference, p)["liver"] for p in ("flare23", "corrected")
    )
    assert corrected.dsc == 10 / 19
    assert official.dsc == 0.5263
    assert official.nsd == round(corrected.nsd, 4) != corrected.nsd


def test_each_class_is_measured_at_its_own_tolerance_and_as_if_on_the_whole_volume():
    generator = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(generator.normal(size=(2, 20, 16, 14)), (0, 1, 1, 1))
    reference = np.digitize(noise[0], np.linspace(-0.3, 0.3, 14)).astype(np.uint8)
    prediction = np.digitize(0.6 * noise[0] + 0.4 * noise[1], np.linspace(-0.2, 0.2, 14))
    prediction = prediction.astype(np.uint8)
    for scored in score_case(prediction, reference, SPACING, "corrected"):
        masks = prediction == scored.label, reference == scored.label  # all slices hold all tubes
        expected = oracle(*masks, SPACING, BY_ID[scored.label].tolerance_mm)
        assert (scored.dsc, scored.nsd) == pytest.approx(expected, abs=1e-9)


def test_an_unknown_protocol_and_differing_shapes_are_refused():
    with pytest.raises(ValueError, match="'flare24', known are flare23, corrected"):
        score_case(volume(), volume(), SPACING, "flare24")
    with pytest.raises(ValueError, match=r"\(19, 16, 14\) and \(20, 16, 14\)"):
        score_case(volume()[1:], volume(), SPACING, "flare23")


def test_summary_averages_classes_over_cases_and_leaves_undefined_scores_out():
    records = [ClassScore(label.id, label.id / 20, 0.5) for label in LABELS]
    records += [ClassScore(label.id, label.id / 10 - label.id / 20, 1.0) for label in LABELS]
    records += [ClassScore(5, math.nan, math.nan)]
    summary = summarize(records)
    assert list(summary["classes"]) == list(NAMES[1:])
    assert summary["classes"]["aorta"] == {"dsc": 0.25, "nsd": 0.75}
    assert summary["organs"]["dsc"] == pytest.approx(7 / 20)
    assert summary["tumor"] == {"dsc": 0.7, "nsd": 0.75}
    assert summary["all"]["dsc"] == pytest.approx(7.5 / 20)
    assert math.isnan(summarize([])["all"]["dsc"])


@pytest.mark.paper
def test_tolerances_are_those_of_the_official_scorer():
    expected = (5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3, 2)
    assert tuple(label.tolerance_mm for label in LABELS) == expected


@pytest.mark.paper
def test_table_5_averages_are_the_means_of_its_rows():
    # the final student's online validation DSC, in percent
    rows = (
        97.06,
        93.07,
        95.38,
        83.24,
        95.40,
        90.80,
        82.46,
        82.59,
        82.56,
        81.55,
        93.26,
        81.53,
        92.02,
    )
    tumor = 30.47
    values = dict(zip(ORGANS, rows, strict=True)) | {14: tumor}
    summary = summarize(ClassScore(label, value, value) for label, value in values.items())
    assert summary["organs"]["dsc"] == pytest.approx(88.53, abs=0.0051)
    assert summary["tumor"]["dsc"] == tumor
    assert summary["all"]["dsc"] == pytest.approx(84.38, abs=0.0051)
