import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from flarekd.inference import mixing, slabs
from flarekd.inference.slabs import labels_from_logits, labels_from_planes

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))


def whole(logits: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """The oracle: every class interpolated at native resolution."""
    return functional.interpolate(logits[None].double(), shape, mode="trilinear")[0]


def assert_equal_but_for_ties(labels: np.ndarray, logits: torch.Tensor) -> None:
    chosen = logits.gather(0, torch.from_numpy(labels).long()[None])[0]
    # rounding decides only between values that are nearly the same
    assert float((logits.amax(0) - chosen).max()) < 1e-4
    expected = logits.argmax(0).numpy()
    two = logits.topk(min(2, len(logits)), 0).values
    is_clear = (two[0] - two[-1] > 1e-4).numpy() | (len(logits) == 1)
    np.testing.assert_array_equal(labels[is_clear], expected[is_clear])
    assert is_clear.mean() > 0.9


def random_logits(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(SHAPES, SHAPES, st.integers(1, 15), st.integers(0, 99))
def test_labels_equal_those_of_interpolating_everything(source, native, classes, seed):
    logits = random_logits((classes, *source), seed)
    labels = labels_from_logits(logits, native)
    assert labels.dtype == np.uint8
    assert labels.shape == native
    values = whole(logits, native)
    chosen = values.gather(0, torch.from_numpy(labels).long()[None])[0]
    assert float((values.amax(0) - chosen).max()) < 1e-4


@st.composite
def blocky_logits(draw):
    """Logits with wide uniform regions, borders anywhere and ties at corners, in small integers."""
    source = draw(SHAPES)
    classes = draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    logits = np.zeros((classes, *source), np.float32)
    for _ in range(draw(st.integers(0, 3))):
        corner = [generator.integers(0, size) for size in source]
        box = tuple(slice(first, first + 1 + generator.integers(0, 9)) for first in corner)
        logits[(generator.integers(classes), *box)] += generator.integers(-2, 5)
    return torch.from_numpy(logits).to(draw(st.sampled_from([torch.float32, torch.float16])))


@settings(max_examples=80, deadline=None)
@given(blocky_logits(), SHAPES, st.sampled_from([0.0, 0.3, 2.0]))
def test_skipping_uniform_cells_changes_no_label(logits, native, most_mixed):
    # 2: every mixed voxel is picked; 0: slabs with one are resized whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "MOST_MIXED", most_mixed)
        labels = labels_from_logits(logits, native)
    values = whole(logits.float(), native)
    chosen = values.gather(0, torch.from_numpy(labels).long()[None])[0]
    assert float((values.amax(0) - chosen).max()) < 1e-5
    clear = values.topk(min(2, len(logits)), 0).values
    clear = ((clear[0] - clear[-1] > 1e-5) | (len(logits) == 1)).numpy()
    np.testing.assert_array_equal(labels[clear], values.argmax(0).numpy()[clear])


def test_every_corner_of_a_cell_makes_it_mixed():
    for corner in np.ndindex(2, 2, 2):
        logits = torch.zeros(2, 2, 2, 2)
        logits[(1, *corner)] = 1.0
        z, y, x = (4 * index for index in corner)
        labels = labels_from_logits(logits, (5, 5, 5))
        assert labels[z, y, x] == 1
        assert labels[4 - z, 4 - y, 4 - x] == 0


def test_classes_that_win_no_corner_can_win_between_them():
    # 9 against 10 and 0 at the ends: in the middle 9 against 5 and 5
    logits = torch.tensor([[10.0, 0.0], [9.0, 9.0], [0.0, 10.0]]).reshape(3, 1, 1, 2)
    assert labels_from_logits(logits, (1, 1, 9)).ravel().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_class_ruled_out_by_minus_infinity_never_wins():
    logits = random_logits((4, 3, 5, 6))
    logits[2] = -torch.inf
    logits[3, :, 2:] = -torch.inf
    for native in ((5, 9, 11), (3, 5, 6), (2, 2, 3)):
        for most_mixed in (0.0, 2.0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(slabs, "MOST_MIXED", most_mixed)
                labels = labels_from_logits(logits, native)
            expected = whole(logits.clamp(min=-1e30), native).argmax(0)
            np.testing.assert_array_equal(labels, expected.numpy())


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_are_refused(method, bad):
    logits = random_logits((3, 4, 5, 6))
    logits[1, 2, 3, 4] = bad
    with pytest.raises(ValueError, match="slice 2 hold NaN or infinity"):
        labels_from_logits(logits, (8, 10, 12), method)


@pytest.mark.parametrize("classes", [2, 15])
@pytest.mark.parametrize(
    "native",
    [(28, 40, 45), (5, 17, 11), (7, 31, 29), (1, 50, 3), (14, 31, 29), (7, 40, 29), (3, 60, 10)],
)
def test_smooth_logits_give_exactly_the_labels_of_the_whole(native, classes):
    logits = whole(10 * random_logits((classes, 3, 5, 4)), (7, 31, 29)).float()
    assert_equal_but_for_ties(labels_from_logits(logits, native), whole(logits, native))


def test_two_slices_become_four_by_quarters():
    # class 1 minus class 0 runs from -1 to 3: at native slices -1, 0 (a tie), 2 and 3
    logits = torch.tensor([[0.0, 0.0], [-1.0, 3.0]]).reshape(2, 2, 1, 1)
    assert labels_from_logits(logits, (4, 1, 1)).ravel().tolist() == [0, 0, 1, 1]


def test_ties_go_to_the_lower_id():
    assert labels_from_logits(torch.zeros(4, 2, 2, 2), (3, 3, 3)).max() == 0
    tied = torch.tensor([0.0, 5.0, 5.0]).reshape(3, 1, 1, 1).expand(3, 2, 2, 2)
    assert np.unique(labels_from_logits(tied, (3, 4, 5))).tolist() == [1]


def test_the_same_size_is_the_plain_arg_max():
    logits = random_logits((15, 4, 6, 5))
    for method in ("linear", "nearest"):
        labels = labels_from_logits(logits, (4, 6, 5), method=method)
        np.testing.assert_array_equal(labels, logits.argmax(0).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_interpolated_in_full_precision(dtype):
    logits = random_logits((5, 3, 6, 4)).to(dtype)
    expected = labels_from_logits(logits.float(), (7, 9, 9))
    np.testing.assert_array_equal(labels_from_logits(logits, (7, 9, 9)), expected)


def test_a_cropped_view_does_as_well_as_a_contiguous_tensor():
    logits = random_logits((3, 6, 9, 8))[:, 1:5, 2:7, 1:6]
    expected = labels_from_logits(logits.contiguous(), (9, 7, 8))
    np.testing.assert_array_equal(labels_from_logits(logits, (9, 7, 8)), expected)


@pytest.mark.paper
@pytest.mark.parametrize("native", [(12, 20, 15), (4, 3, 2), (5, 6, 7), (1, 1, 1), (10, 12, 14)])
def test_nearest_takes_the_arg_max_first_as_the_paper_did(native):
    logits = random_logits((6, 5, 6, 7))
    small = logits.argmax(0)[None, None].float()
    expected = functional.interpolate(small, native, mode="nearest-exact")[0, 0]
    labels = labels_from_logits(logits, native, method="nearest")
    np.testing.assert_array_equal(labels, expected.numpy())


@pytest.mark.parametrize(
    ("shape", "native"),
    [((2, 3, 3), (3, 3, 3)), ((257, 1, 1, 1), (1, 1, 1)), ((2, 1, 1, 1), (0, 1, 1))],
)
def test_impossible_shapes_are_refused(shape, native):
    with pytest.raises(ValueError, match=r"cannot resize|a plane must be|must be \(C, z, y, x\)"):
        labels_from_logits(torch.zeros(shape), native)


@pytest.mark.parametrize(("source", "native"), [((3, 3), (1, 3, 3)), ((1, 3, 3), (3, 3))])
def test_sizes_that_are_not_of_a_volume_are_refused(source, native):
    with pytest.raises(ValueError, match="cannot resize"):
        labels_from_planes([torch.zeros(2, 3, 3)], source, native)


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("native", [(3, 9, 9), (9, 20, 17), (30, 4, 5)])
def test_planes_that_come_one_by_one_are_held_two_at_a_time(method, native):
    logits = torch.randn(4, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    alive = weakref.WeakSet()

    def come():
        for z in range(9):
            plane = logits[:, z].clone()
            alive.add(plane)
            yield plane
            del plane
            assert len(alive) <= 2
            taken.append(z)

    taken = []
    found = labels_from_planes(come(), (9, 8, 8), native, method)
    np.testing.assert_array_equal(found, labels_from_logits(logits, native, method))
    assert taken == list(range(9))  # also those that no native slice needs


def test_a_plane_of_another_size_is_refused():
    planes = [torch.zeros(2, 3, 3), torch.zeros(2, 3, 4)]
    with pytest.raises(ValueError, match=r"a plane must be \(C ≤ 256, \*\(3, 3\)\)"):
        labels_from_planes(planes, (2, 3, 3), (4, 4, 4))


@pytest.mark.parametrize("smooth", [False, True])
def test_pieces_of_bounded_size_give_the_same_labels_to_the_bit(smooth):
    logits = random_logits((21, 5, 23, 19), seed=3)
    if smooth:
        logits = whole(10 * random_logits((21, 2, 3, 3)), (5, 23, 19)).float()
    expected = labels_from_logits(logits, (22, 60, 53))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "MOST_RESIZED", 0)
        patch.setattr(slabs, "MOST_PICKED", 21 * 64)
        np.testing.assert_array_equal(labels_from_logits(logits, (22, 60, 53)), expected)


PEAK = """
import resource, sys, torch
from flarekd.inference.slabs import labels_from_logits
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
labels_from_logits(torch.zeros(2, 2, 8, 8), (4, 16, 16))
logits = torch.zeros(int(sys.argv[1]), int(sys.argv[2]), 170, 170)
logits[0] += 1
before = peak()
labels_from_logits(logits, (4 * int(sys.argv[2]), 256, 256))
print(peak() - before)
"""


def peak_growth_mib(classes: int, source_slices: int) -> int:
    command = [sys.executable, "-c", PEAK, str(classes), str(source_slices)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_memory_holds_the_labels_and_two_source_slices_but_never_all_classes():
    # classes × native volume would be 1,500 and 3,000 MiB of float32
    native_mib = 100 * 256 * 256 / 2**20
    assert peak_growth_mib(60, 25) < native_mib + 120
    assert peak_growth_mib(30, 100) < 4 * native_mib + 90


NOISE = """
import re, sys, torch
from pathlib import Path
from flarekd.inference.mixing import working_bytes
from flarekd.inference.head import Head
from flarekd.inference.slabs import labels_from_planes
held = lambda kind: int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
classes, features, size = map(int, sys.argv[1:])
head = Head(torch.randn(classes, features), torch.randn(classes, 1)) if features else None
channels = features or classes
labels_from_planes(torch.rand(2, channels, 8, 8).unbind(), (2, 8, 8), (4, 16, 16), head=head)
planes = torch.rand(3, channels, 200, 200)
before = held("VmRSS")
labels = labels_from_planes(planes.unbind(), (3, 200, 200), (6, size, size), head=head)
told = working_bytes(channels, (200, 200), (size, size), head) + labels.size
print(((held("VmHWM") - before) * 1024 - 8e6) / told)  # less what is loaded meanwhile
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("sizes", [(15, 0, 512), (200, 0, 400), (200, 4, 768)])
def test_memory_on_noise_is_no_more_than_is_told(sizes):
    # each cell is mixed; of 200 classes two planes would be 256 MB, and 944 MB by a head
    command = [sys.executable, "-c", NOISE, *map(str, sizes)]
    share = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.2 < share < 1
