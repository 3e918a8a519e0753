from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.training.sampling import draw_start, is_forced


@dataclass
class Fake:
    shape_zyx: tuple
    voxels: dict

    @property
    def classes(self):
        return list(self.voxels)

    def locations(self, label):
        return np.array(self.voxels[label])


@pytest.mark.paper
def test_one_of_four_and_one_of_two_are_forced():
    assert [is_forced(i, 4, 0.33) for i in range(4)] == [False, False, False, True]
    assert [is_forced(i, 2, 0.33) for i in range(2)] == [False, True]


def test_a_forced_patch_is_centred_on_a_voxel_of_the_class():
    case = Fake((40, 60, 80), {3: [(20, 30, 40)]})
    rng = np.random.default_rng(0)
    assert draw_start(rng, case, (8, 8, 8), (8, 8, 8), forced=True) == (16, 26, 36)


def test_a_forced_patch_is_clamped_at_the_lower_end_alone():
    rng = np.random.default_rng(0)
    low, high = Fake((40, 60, 80), {3: [(0, 0, 0)]}), Fake((40, 60, 80), {3: [(39, 59, 79)]})
    assert draw_start(rng, low, (8, 8, 8), (8, 12, 12), forced=True) == (0, -2, -2)
    assert draw_start(rng, high, (8, 8, 8), (8, 8, 8), forced=True) == (35, 55, 75)


def test_classes_are_drawn_alike_however_many_voxels_they_have():
    case = Fake((40, 60, 80), {1: [(20, 30, 40)] * 1000, 2: [(5, 6, 7)]})
    rng = np.random.default_rng(0)
    starts = [draw_start(rng, case, (2, 2, 2), (2, 2, 2), forced=True) for _ in range(400)]
    assert 140 < starts.count((4, 5, 6)) < 260


def test_slices_are_drawn_alike_for_a_flat_patch():
    case = Fake((40, 60, 80), {1: [(3, y, x) for y in range(30) for x in range(30)] + [(7, 1, 1)]})
    rng = np.random.default_rng(0)
    slices = [draw_start(rng, case, (1, 4, 4), (1, 4, 4), forced=True)[0] for _ in range(400)]
    assert 140 < slices.count(7) < 260
    assert set(slices) == {3, 7}


def test_a_case_without_foreground_gives_a_patch_from_anywhere():
    rng = np.random.default_rng(0)
    assert draw_start(rng, Fake((4, 4, 4), {}), (4, 4, 4), (4, 4, 4), forced=True) == (0, 0, 0)


sizes = st.tuples(*[st.integers(1, 40)] * 3)


@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_a_random_patch_reaches_over_the_border_by_its_margin_alone(shape, patch, seed):
    oversize = tuple(length + 6 for length in patch)
    start = draw_start(np.random.default_rng(seed), Fake(shape, {}), patch, oversize, forced=False)
    for first, length, outer in zip(start, shape, oversize, strict=True):
        if length >= outer - 6:  # the patch fits: it lies inside
            assert first + 3 >= 0
            assert first + 3 + (outer - 6) <= length
        else:  # the case fits: it lies inside the region
            assert first <= 0
            assert first + outer >= length
