from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.student.pointwise import AIR, PATCH, TISSUE, Threshold, body, expected, labels

from flarekd.errors import InputError
from flarekd.student.windows import (
    PaperRules,
    SkipRules,
    predict_logits,
    skip_rules,
    stream_logits,
)

RULES = SkipRules(air=-1.0)
BODY = SkipRules(air=-1.0, in_body=True)


class Wide(torch.nn.Module):
    """Sees 7 voxels wide, and zeros beyond a window: every window judges a voxel in its own way."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = torch.nn.Conv3d(1, 4, 7, padding=3)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator) / 10
        self.conv.bias.data = torch.tensor([3.0, 0.0, 0.0, 0.0])
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.conv(windows)


def patient(shape: tuple[int, int, int], seed: int, blobs: int = 3) -> torch.Tensor:
    """Boxes of random tissue in air."""
    rng = np.random.default_rng(seed)
    volume = torch.full(shape, AIR)
    for _ in range(blobs):
        low = [int(rng.integers(0, n)) for n in shape]
        place = tuple(slice(a, a + int(rng.integers(1, 14))) for a in low)
        volume[place] = float(rng.integers(0, 8))
    return volume


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.5, 0.7, 1.0]),
    st.integers(1, 4),
)
def test_all_windows_of_a_pointwise_network_equal_the_network_itself(shape, step, batch):
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    network = Threshold(3)
    found = predict_logits(network, volume, PATCH, step=step, batch=batch)
    with torch.inference_mode():
        direct = network.head(volume[None, None])[0]
    torch.testing.assert_close(found.logits, direct, rtol=0, atol=1e-5)
    assert found.windows_run == found.windows_total


@pytest.mark.paper
def test_all_windows_means_the_regular_grid():
    # z 0..4..8, y and x 0..8..16..24
    found = predict_logits(Threshold(2), body((16, 40, 40)), PATCH)
    assert (found.windows_run, found.windows_total) == (48, 48)


def test_windows_are_run_in_batches_and_counted():
    network, done = Threshold(2), []
    found = stream_logits(
        network, body((8, 32, 32)), PATCH, batch=4, on_window=lambda *a: done.append(a)
    )
    assert network.starts == []  # nothing runs before it is asked for
    assert len(list(found.planes)) == 8
    assert network.starts == [4, 4, 1]
    assert done == [(4, 9), (8, 9), (9, 9)]
    assert found.windows_run == 9


def test_windows_are_run_one_by_one_unless_told_otherwise():
    network, volume = Threshold(2), body((8, 16, 24))
    predict_logits(network, volume, PATCH)
    list(stream_logits(network, volume, PATCH).planes)
    assert network.starts == [1, 1, 1, 1]


def test_no_more_planes_are_held_than_a_window_is_thick():
    network, held, volume = Threshold(2), [], body((40, 32, 32))
    found = stream_logits(network, volume, PATCH)
    for plane in found.planes:
        held.append(len(found._visits.planes._open))
        assert torch.isfinite(plane).all()
    assert max(held) < PATCH[0]
    assert held[-1] == 0
    assert found.windows_run == found.windows_total == 9 * 9
    # what a GPU must have room for
    assert found._visits.planes._held == PATCH[0]
    assert stream_logits(network, volume, PATCH, skip=RULES)._visits.planes._held == 40


def test_wrong_shapes_and_training_mode_are_refused():
    with pytest.raises(ValueError, match="must be 3D"):
        predict_logits(Threshold(), torch.zeros(4, 4), PATCH)
    with pytest.raises(ValueError, match="training mode"):
        predict_logits(Threshold().train(), torch.zeros(4, 4, 4), PATCH)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_gives_the_labels_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    volume = body((16, 40, 40))
    volume[4:9, 12:30, 12:30] = 3
    network = Threshold().cuda()
    found = predict_logits(network, volume.cuda(), PATCH, skip=SkipRules(AIR + 1))
    assert found.logits.device.type == "cpu"
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize("skip", [None, RULES, BODY])
@pytest.mark.parametrize("shape", [(1, 30, 30), (3, 5, 7), (8, 16, 16), (20, 9, 40), (1, 1, 1)])
def test_small_volumes_and_single_slices_keep_their_shape(shape, skip):
    volume = body(shape)
    volume[tuple(size // 2 for size in shape)] = 3
    found = predict_logits(Threshold(), volume, PATCH, skip=skip)
    assert found.logits.shape == (8, *shape)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))
    assert 1 <= found.windows_run <= found.windows_total


shapes = st.tuples(st.integers(1, 24), st.integers(1, 72), st.integers(1, 72))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000), st.sampled_from([0.5, 0.75, 1.0]), st.integers(1, 5))
def test_efficient_labels_equal_those_of_all_windows(shape, seed, step, batch):
    volume = patient(shape, seed)
    full = predict_logits(Threshold(), volume, PATCH, step=step)
    for skip in (RULES, BODY):
        found = predict_logits(Threshold(), volume, PATCH, step=step, skip=skip, batch=batch)
        np.testing.assert_array_equal(labels(found.logits), labels(full.logits))
        assert found.windows_run <= found.windows_total == full.windows_total


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_what_efficient_windows_call_foreground_has_the_logits_of_all_windows(shape, seed, step):
    volume = patient(shape, seed, blobs=1) - AIR
    full = predict_logits(Wide(seed), volume, PATCH, step=step).logits
    found = predict_logits(Wide(seed), volume, PATCH, step=step, skip=SkipRules(), batch=3).logits
    foreground = labels(found) > 0
    torch.testing.assert_close(found[:, foreground], full[:, foreground], rtol=0, atol=1e-4)


def test_a_network_of_context_saves_windows_and_loses_nothing():
    volume = torch.zeros(40, 64, 64)
    volume[12:20, 20:30, 20:30] = torch.rand(8, 10, 10, generator=torch.manual_seed(3)) * 8
    full = predict_logits(Wide(1), volume, PATCH)
    found = predict_logits(Wide(1), volume, PATCH, skip=SkipRules())
    assert (labels(full.logits) > 0).any()
    np.testing.assert_array_equal(labels(found.logits), labels(full.logits))
    assert found.windows_run < full.windows_run / 2


def test_body_without_an_organ_is_covered_once():
    # step 0.5: z 0..4..32, y and x 0..8..48; every other one covers
    found = predict_logits(Threshold(), body((40, 64, 64)), PATCH, skip=RULES)
    assert (found.windows_run, found.windows_total) == (5 * 4 * 4, 9 * 7 * 7)
    assert found.logits[:, 0, 0, 0].tolist() == Threshold().head.bias.tolist()


def test_a_voxel_of_foreground_runs_all_windows_that_hold_it_and_no_other():
    volume = body((24, 48, 48))
    volume[13, 25, 25] = 1
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    # 3³ cover; the voxel lies in two windows an axis, of which one is among them
    assert found.windows_run == 27 + 8 - 1
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


def test_foreground_that_ends_at_a_window_s_border_runs_its_neighbour():
    volume = body((8, 16, 48))
    volume[4, 8, 15] = 1  # the last voxel of the window x 0..16; x 16..32 only touches it
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert (found.windows_run, found.windows_total) == (4, 5)
    volume[4, 8, 15], volume[4, 8, 23] = 0, 1  # x 8..24 ends in it, x 24..40 touches it
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert found.windows_run == 5


@pytest.mark.parametrize(
    "organ",
    [
        (slice(2, 6), slice(5, 8), slice(50, 58)),  # off centre
        (slice(0, 8), slice(60, 64), slice(60, 64)),  # in the last corner
        (slice(0, 8), slice(0, 64), slice(30, 34)),  # larger than the paper's central region
    ],
)
@pytest.mark.parametrize("skip", [RULES, BODY])
def test_foreground_is_found_wherever_it_lies(organ, skip):
    volume = body((8, 64, 64))
    volume[organ] = 7
    found = predict_logits(Threshold(), volume, PATCH, skip=skip)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize("skip", [RULES, BODY])
def test_two_arms_up_beside_nothing_are_both_found(skip):
    volume = torch.full((16, 32, 80), AIR)
    volume[:, 10:20, 2:6] = 1
    volume[:, 10:20, 74:78] = 2
    found = predict_logits(Threshold(), volume, PATCH, skip=skip)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))
    assert found.windows_run < found.windows_total


def test_windows_of_air_are_not_run_and_are_background():
    volume = torch.full((8, 64, 64), AIR)
    volume[:, 4:12, 4:12] = 1
    found = predict_logits(Threshold(), volume, PATCH, skip=RULES)
    assert found.windows_run == 4  # 0 and 8 in y and in x
    assert torch.isfinite(found.logits).all()
    assert found.logits[:, 0, -1, -1].tolist() == [20.0] + 7 * [0.0]
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize("skip", [RULES, BODY])
def test_nothing_but_air_runs_nothing_and_is_background(skip):
    done: list[tuple[int, int]] = []
    volume = torch.full((10, 40, 20), AIR)
    found = stream_logits(
        Threshold(), volume, PATCH, skip=skip, on_window=lambda *a: done.append(a)
    )
    assert [plane.tolist() for plane in found.planes] == 10 * [[40 * [20 * [20.0]]]]
    assert found.windows_run == 0
    assert done == [(found.windows_total, found.windows_total)]


def test_padding_is_not_taken_for_tissue():
    # padding is 0, above the threshold of air, but nothing of the patient
    found = predict_logits(Threshold(), torch.full((3, 10, 10), AIR), PATCH, skip=RULES)
    assert found.windows_run == 0


def test_the_body_s_own_grid_is_laid_over_its_box():
    volume = torch.full((8, 64, 64), AIR)
    volume[:, 20:44, 12:28] = TISSUE
    volume[2:6, 24:40, 14:26] = 3
    found = predict_logits(Threshold(), volume, PATCH, skip=BODY)
    # y 20..36 and 28..44, x 12..28; over the whole slice it were 7×7
    assert (found.windows_run, found.windows_total) == (2, 49)
    np.testing.assert_array_equal(labels(found.logits), expected(volume))


@pytest.mark.parametrize("skip", [None, RULES, BODY, PaperRules(air=-1.0)])
def test_progress_rises_to_the_total_and_no_window_is_run_twice(skip):
    volume = patient((24, 60, 60), 5)
    network, done = Threshold(), []
    found = stream_logits(
        network, volume, PATCH, skip=skip, batch=3, on_window=lambda *a: done.append(a)
    )
    assert len(list(found.planes)) == 24
    assert sum(network.starts) == found.windows_run <= found.windows_total
    assert max(network.starts) <= 3
    assert done == sorted(set(done))
    assert done[-1] == (found.windows_total, found.windows_total)


def test_modes_are_called_as_in_model_files():
    assert skip_rules("full", -1.0) is None
    assert skip_rules("efficient", -1.0) == RULES
    assert skip_rules("body", -1.0) == BODY
    assert skip_rules("paper", -1.0) == PaperRules(air=-1.0)
    with pytest.raises(ValueError, match="must be one of full, efficient, body, paper, not 'fast'"):
        skip_rules("fast", None)


@pytest.mark.parametrize("mode", ["full", "efficient", "body", "paper"])
def test_more_windows_than_anybody_waits_for_are_refused_before_the_first(mode):
    volume = torch.zeros(300, 300, 300)
    with pytest.raises(InputError, match=r"takes [\d,]+ windows, more than"):
        stream_logits(Threshold(), volume, (2, 4, 4), skip=skip_rules(mode, -1.0))
