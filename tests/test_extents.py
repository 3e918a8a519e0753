import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flarekd.extents import FACES, Extent, measure_extents


def test_a_bar_of_four_voxels_by_hand():
    labels = np.zeros((5, 4, 6), np.uint8)
    labels[1:4, 2, 3] = 7
    labels[3, 2, 4] = 7
    # slices of 5 mm: from 5 to 20 mm; middles at 7.5, 12.5 and twice 17.5
    assert measure_extents(labels, (5.0, 2.0, 0.5)) == {
        7: Extent(4, 0.02, low_mm=5.0, high_mm=20.0, centre_mm=13.75, cut_off=())
    }


def test_each_face_of_the_scan_cuts_what_touches_it():
    for axis, names in enumerate(FACES):
        for name, end in zip(names, (0, 4), strict=True):
            labels = np.zeros((5, 5, 5), np.uint8)
            place = [2, 2, 2]
            place[axis] = end
            labels[tuple(place)] = 1
            found = measure_extents(labels, (1, 1, 1))[1]
            assert found.cut_off == (name,)
            assert found.is_whole_in_z == (axis != 0)


def test_nothing_is_measured_of_an_empty_map():
    assert measure_extents(np.zeros((3, 3, 3), np.uint8), (1, 1, 1)) == {}


@given(arrays.arrays(np.uint8, (4, 3, 5), elements=st.integers(0, 3)))
def test_sizes_and_places_are_those_of_the_voxels(labels):
    found = measure_extents(labels, (2.0, 3.0, 4.0))
    assert set(found) == set(np.unique(labels).tolist()) - {0}
    for label, one in found.items():
        z = np.nonzero(labels == label)[0]
        assert (one.voxels, one.ml) == (z.size, round(z.size * 24 / 1000, 3))
        assert (one.low_mm, one.high_mm) == (z.min() * 2, (z.max() + 1) * 2)
        assert abs(one.centre_mm - (z + 0.5).mean() * 2) < 1e-3
