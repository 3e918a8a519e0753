from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from flarekd.inference.windows import (
    bounding_box,
    central_positions,
    cover,
    extended_positions,
    gaussian,
    pad_to_patch,
    positions,
    slice_positions,
)

SIZES = st.integers(1, 900)
PATCHES = st.integers(2, 256)
STEPS = st.sampled_from([0.25, 0.3, 0.5, 0.75, 1.0])


def assert_covers(starts: list[int], size: int, patch: int) -> None:
    assert starts[0] == 0
    assert starts[-1] == max(size - patch, 0)
    assert all(0 < b - a <= patch for a, b in pairwise(starts))


@pytest.mark.paper
@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [
        (68, 32, [0, 12, 24, 36]),
        (512, 512, [0]),
        (513, 512, [0, 1]),
        (768, 512, [0, 256]),
        (769, 512, [0, 128, 257]),
        (1024, 512, [0, 256, 512]),
    ],
)
def test_regular_positions_are_those_of_the_published_code(size, patch, expected):
    assert positions(size, patch, 0.5) == expected


@pytest.mark.paper
@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [
        (333, 128, [38, 102, 166]),
        (333, 192, [0, 70, 141]),
        (400, 128, [72, 136, 200]),
        (400, 192, [8, 104, 200]),
        (192, 192, [0]),
        (100, 192, [0]),
    ],
)
def test_central_positions_are_those_of_the_published_code(size, patch, expected):
    assert central_positions(size, patch) == expected


@pytest.mark.paper
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (300, [0]),
        (512, [0]),
        (513, [0, 1]),
        (600, [0, 88]),
        (1024, [0, 512]),
        (1025, [0, 171, 342, 513]),
        (1280, [0, 256, 512, 768]),
    ],
)
def test_a_slice_has_two_windows_an_axis_between_one_and_two_patches(size, expected):
    assert slice_positions(size, 512) == expected


@given(SIZES, PATCHES, STEPS)
def test_regular_windows_cover_the_axis_and_keep_the_step(size, patch, step):
    starts = positions(size, patch, step)
    assert_covers(starts, size, patch)
    # starts are rounded to whole voxels, so a distance may exceed the step by less than one
    assert all(b - a < patch * step + 1 for a, b in pairwise(starts))


@given(SIZES, PATCHES)
def test_slice_windows_cover_the_axis(size, patch):
    assert_covers(slice_positions(size, patch), size, patch)


@given(SIZES, PATCHES, STEPS)
def test_extended_windows_cover_the_axis_and_contain_the_central_ones(size, patch, step):
    starts, central = extended_positions(size, patch, step)
    assert_covers(starts, size, patch)
    assert [starts[i] for i in central] == central_positions(size, patch, step)


def test_extended_windows_go_outwards_at_half_a_patch_to_the_ends():
    assert extended_positions(400, 128) == ([0, 8, 72, 136, 200, 264, 272], [2, 3, 4])
    assert extended_positions(333, 192) == ([0, 70, 141], [0, 1, 2])
    assert extended_positions(8, 2) == ([0, 1, 2, 3, 4, 5, 6], [2, 3, 4])


def test_an_axis_hardly_longer_than_the_patch_has_no_window_twice():
    assert central_positions(129, 128) == [0, 1]


@pytest.mark.parametrize(
    ("size", "patch", "step"), [(0, 4, 0.5), (4, 0, 0.5), (4, 2, 0), (4, 2, 2)]
)
def test_impossible_grids_are_refused(size, patch, step):
    with pytest.raises(ValueError, match=r"must be"):
        positions(size, patch, step)


@pytest.mark.paper
@pytest.mark.parametrize("patch", [(8, 12, 16), (5, 9, 2), (32, 48), (1, 7)])
def test_the_gaussian_is_a_filtered_delta_without_zeros(patch):
    delta = np.zeros(patch)
    delta[tuple(size // 2 for size in patch)] = 1
    expected = gaussian_filter(delta, [size / 8 for size in patch], mode="constant")
    expected /= expected.max()
    weight = gaussian(patch)
    assert weight.dtype == torch.float32
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)
    assert weight.min() > 0
    assert weight.max() == 1


def test_padding_is_on_both_sides_and_can_be_cut_off_again():
    image = torch.arange(1.0, 7.0).reshape(1, 2, 3)
    padded, crop = pad_to_patch(image, (7, 3))
    assert padded.shape == (1, 7, 3)
    assert padded[0, :, 0].tolist() == [0, 0, 1, 4, 0, 0, 0]
    assert torch.equal(padded[:, crop[0], crop[1]], image)


def test_an_image_that_is_large_enough_is_not_copied():
    image = torch.zeros(4, 4)
    assert pad_to_patch(image, (4, 2))[0] is image


@given(st.integers(1, 300), st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.7, 1.0]))
def test_covering_windows_leave_no_gap_and_are_the_fewest(size, patch, step):
    starts = positions(size, patch, step)
    chosen = [starts[i] for i in cover(starts, patch)]
    assert chosen[0] == 0
    assert chosen[-1] == starts[-1]
    assert all(b - a <= patch for a, b in pairwise(chosen))
    # greedy: no third window starts where the first one still reaches
    assert all(c - a > patch for a, c in zip(chosen, chosen[2:], strict=False))


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9))
def test_a_bounding_box_holds_the_mask_and_is_no_larger_than_need_be(seed, height, width):
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((9, 9)) < rng.choice([0.0, 0.02, 0.2]))
    box = bounding_box(mask, (height, width))
    assert mask[box].sum() == mask.sum()
    for axis, least in enumerate((height, width)):
        where = mask.nonzero()[:, axis].tolist()
        extent = max(where) - min(where) + 1 if where else 0
        assert 0 <= box[axis].start < box[axis].stop <= 9
        assert box[axis].stop - box[axis].start == max(least, extent)


def test_a_small_mask_lies_in_the_middle_of_its_box():
    mask = torch.zeros(20, dtype=torch.bool)
    mask[10:12] = True
    assert bounding_box(mask, (6,)) == (slice(8, 14),)
