from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.student.pointwise import AIR, PATCH, TISSUE, Threshold, body, expected, labels

from flarekd.student.windows import PaperRules, predict_logits, skip_rules, stream_logits

RULES = PaperRules(air=-1.0, empty_share=20 / (8 * 16 * 16))


@pytest.mark.parametrize("skip", [RULES])
@pytest.mark.parametrize("shape", [(1, 30, 30), (3, 5, 7), (8, 16, 16), (20, 9, 40), (1, 1, 1)])
def test_small_volumes_and_single_slices_keep_their_shape(shape, skip):
    volume = body(shape)
    volume[tuple(size // 2 for size in shape)] = 3
    found = predict_logits(Threshold(), volume, PATCH, skip=skip)
    assert found.logits.shape == (8, *shape)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize("air", [-1.0, None])
def test_an_empty_middle_skips_its_level_and_the_next_but_never_the_last(air):
    # levels start at 0, 4, 8, 12, 16; 1 and 3 are skipped; the last never is
    rules = PaperRules(air=air)
    found = predict_logits(Threshold(), body((24, 32, 32)), PATCH, skip=rules)
    assert found.windows_run == 3
    assert found.windows_total == 5 * 3 * 3
    assert not labels(found.logits).any()


def test_a_level_is_not_skipped_where_windows_do_not_overlap():
    found = predict_logits(Threshold(), body((24, 32, 32)), PATCH, step=1.0, skip=RULES)
    assert found.windows_run == 3  # one a level: skipping one would leave slices unseen
    assert found.windows_total == 3 * 3 * 3


def test_an_organ_in_the_middle_runs_all_nine_windows_of_its_level():
    volume = body((8, 32, 32))
    volume[3:5, 14:18, 14:18] = 1
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert found.windows_run == 9
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.paper
def test_a_tube_in_the_middle_runs_the_middle_alone():
    volume = body((8, 32, 32))
    volume[3:5, 14:18, 14:18] = 5
    volume[3:5, 18:20, 14:18] = 6
    assert predict_logits(Threshold(), volume, PATCH, skip=RULES).windows_run == 1


def test_a_tube_is_known_by_its_name_not_by_its_place_among_the_labels():
    volume = body((8, 32, 32))
    volume[3:5, 14:18, 14:18] = 5
    names = ["background", "liver", "Oesophagus", "inferior vena cava", "arota", "spleen", "lung"]
    assert skip_rules("paper", -1.0, names).tubes == {2, 3, 4}
    rules = replace(skip_rules("paper", -1.0, names), empty_share=RULES.empty_share)
    assert predict_logits(Threshold(), volume, PATCH, skip=rules).windows_run == 9
    volume[volume == 5] = 3
    assert predict_logits(Threshold(), volume, PATCH, skip=rules).windows_run == 1


@pytest.mark.paper
def test_a_tube_that_touches_the_front_row_runs_the_window_in_front():
    volume = body((8, 32, 32))
    volume[3:5, 8:18, 14:18] = 5
    # the middle window is y 8..24; the one in front, y 0..16, touches nothing new
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert found.windows_run == 2
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


def test_foreground_outside_the_central_region_is_found():
    volume = torch.full((8, 64, 64), AIR)
    volume[:, 4:60, 4:60] = TISSUE
    volume[2:6, 5:8, 50:58] = 7
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))
    assert found.windows_run < found.windows_total


def test_foreground_in_front_of_the_central_rows_is_found_between_its_columns():
    # central: y 32..64, x 8..40
    volume = torch.full((8, 96, 48), AIR)
    volume[:, 9:15, 18:26] = 3
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize(("voxels", "windows"), [(19, 1), (20, 9)])
def test_the_least_share_of_foreground_is_not_empty(voxels, windows):
    volume = body((8, 32, 32))
    volume[3, 14:18, 14:19] = 1
    volume[3, 14, 14 : 14 + 20 - voxels] = TISSUE
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert found.windows_run == windows


def test_two_arms_beside_an_empty_middle_are_both_found():
    volume = torch.full((16, 32, 48), AIR)
    volume[:, 10:20, 2:6] = 1
    volume[:, 10:20, 42:46] = 2
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


def test_a_patient_beside_the_middle_is_found():
    volume = torch.full((8, 32, 32), AIR)
    volume[:, 1:7, 1:7] = 4
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))
    assert found.windows_run == 1


def test_a_blob_at_the_border_of_a_window_makes_its_neighbour_run():
    volume = body((8, 32, 32))
    # five voxels: the middle window (x 8..24) is empty by the rule, yet they go on across its face
    volume[4, 16, 20:25] = 1
    without = predict_logits(
        Threshold(), volume, PATCH, skip=PaperRules(RULES.air, RULES.empty_share, face_above=99)
    )
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert (without.windows_run, found.windows_run) == (1, 2)
    assert labels(without.logits).sum() == 4
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


def test_a_chain_is_followed_from_window_to_window_through_a_skipped_level_and_back():
    volume = body((24, 32, 32))
    volume[:, 16, 16] = 1  # one voxel wide, in z: empty everywhere, but across every face
    volume[2, 16, 16:31] = 1
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


def test_nothing_but_air_runs_nothing_and_is_background():
    done: list[tuple[int, int]] = []
    found = stream_logits(
        Threshold(),
        torch.full((10, 40, 20), AIR),
        PATCH,
        skip=RULES,
        on_window=lambda *a: done.append(a),
    )
    assert [plane.tolist() for plane in found.planes] == 10 * [[40 * [20 * [20.0]]]]
    assert found.windows_run == 0
    assert done[-1][0] == done[-1][1]


def test_padding_is_not_taken_for_tissue():
    # padding is 0, above the threshold of air, but nothing of the patient
    found = predict_logits(Threshold(), torch.full((3, 10, 10), AIR), PATCH, skip=RULES)
    assert found.windows_run == 0


def test_skipped_areas_are_background_and_finite():
    volume = torch.full((8, 64, 64), AIR)
    volume[:, 24:40, 24:40] = 1
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert torch.isfinite(found.logits).all()
    assert found.logits[:, 0, 0, 0].tolist() == [20.0] + 7 * [0.0]
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_skipping_only_air_changes_no_label(seed, batch):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, (24, 72, 72)))
    volume = torch.full(shape, AIR)
    for _ in range(3):
        low = [int(rng.integers(0, n)) for n in shape]
        place = tuple(slice(a, a + int(rng.integers(1, 12))) for a in low)
        volume[place] = float(rng.integers(0, 8))
    rules = PaperRules(air=-1.0, empty_share=0, tubes=frozenset())
    found = predict_logits(Threshold(), volume, PATCH, skip=rules, batch=batch)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.paper
def test_an_empty_window_has_fewer_than_1000_of_the_paper_s_786432_voxels():
    assert PaperRules().empty_share * 32 * 128 * 192 == pytest.approx(1000)
    assert PaperRules().tubes == {5, 6, 10}
