"""Batches: cases that cannot be read, lesions, and nothing that passes through shared memory."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.errors import InputError
from flarekd.imaging import store
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.training.batches import Batches, ahead

STATISTICS = IntensityStatistics(-100.0, 300.0, 60.0, 80.0)
SETTINGS = config.load(config.builtin("quick")).student.model_copy(
    update={
        "batch": 2,
        "class_weights": (),
        "patch": (8, 16, 16),
        "oversize": (8, 20, 20),
        "foreground": 0.5,
    }
)


@pytest.fixture
def cases(tmp_path):
    """Four cases, each of its own HU, so that a patch says where it comes from."""
    return make_cases(tmp_path)


def make_cases(folder):
    found = []
    for index in range(4):
        labels = np.zeros((10, 24, 28), np.uint8)
        labels[3:7, 6:14, 8:18] = 1
        if index > 1:
            labels[4, 20, 20] = 14
        path = folder / f"case_{index}.b2nd"
        image = np.full(labels.shape, 100 * index, np.int16)
        store.write_case(
            path, image, labels, spacing_zyx=(5.0, 2.0, 2.0), chunk_zyx=(8, 16, 16), key=""
        )
        found.append(store.open_case(path))
    return found


def plain(**changes):
    """Settings that leave the intensities alone."""
    off = dict.fromkeys(
        (
            "elastic",
            "rotation",
            "scaling",
            "noise",
            "blur",
            "brightness",
            "contrast",
            "low_resolution",
            "gamma_inverted",
            "gamma",
        ),
        0.0,
    )
    augmentation = SETTINGS.augmentation.model_copy(update=off)
    return SETTINGS.model_copy(update={"augmentation": augmentation, **changes})


def drawn(batches, iterations=range(40)):
    """Which case each sample comes from, by its brightest voxel (padding is the mean, 60 HU)."""
    images = torch.cat([batches(iteration)[0] for iteration in iterations])
    hu = images.flatten(1) * STATISTICS.sd + STATISTICS.mean
    found = [[round(float(v)) for v in torch.unique(one) if abs(float(v) - 60) > 1] for one in hu]
    return [(values[0] // 100) if values else None for values in found]


def test_an_unreadable_case_stops_the_run_with_its_name(cases, tmp_path):
    (tmp_path / "case_2.b2nd").unlink()
    with pytest.raises(InputError, match=r"cannot read training case 'case_2': .* was changed or"):
        list(ahead(Batches(cases, plain(), STATISTICS, 5), 0, 20, 2))


def test_an_unreadable_case_is_passed_over_and_counted_by_choice(cases, tmp_path):
    before = drawn(Batches(cases, plain(), STATISTICS, 5))
    assert set(before) == {0, 1, 2, 3}
    path = tmp_path / "case_2.b2nd"
    path.write_bytes(path.read_bytes()[:-100])
    batches = Batches(cases, plain(on_unreadable="skip"), STATISTICS, 5)
    after = drawn(batches)
    assert set(after) == {0, 1, 3}
    assert batches.skipped == {"case_2": before.count(2)}
    # samples of other cases are what they were
    assert [b for a, b in zip(before, after, strict=True) if a != 2] == [
        a for a in before if a != 2
    ]


def test_what_stands_in_depends_on_seed_and_iteration_alone(cases, tmp_path):
    (tmp_path / "case_2.b2nd").unlink()
    runs = []
    for threads in (1, 3):
        batches = Batches(cases, plain(on_unreadable="skip"), STATISTICS, 5)
        runs.append([batch for batch, _ in ahead(batches, 0, 30, threads)])
        assert batches.skipped["case_2"] > 5
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_where_no_case_can_be_read_the_run_stops_all_the_same(cases, tmp_path):
    for path in tmp_path.glob("*.b2nd"):
        path.unlink()
    batches = Batches(cases, plain(on_unreadable="skip"), STATISTICS, 5)
    with pytest.raises(InputError, match="cannot read training case 'case_"):
        batches(0)


def test_a_damaged_chunk_is_told_with_the_case(tmp_path):
    generator = np.random.default_rng(0)
    image = generator.integers(-1000, 1000, (10, 24, 28)).astype(np.int16)
    path = tmp_path / "noise.b2nd"
    options = {"spacing_zyx": (5.0, 2.0, 2.0), "chunk_zyx": (8, 16, 16), "key": ""}
    store.write_case(path, image, np.zeros(image.shape, np.uint8), **options)
    content = bytearray(path.read_bytes())
    # a frame's header says its length in bytes 11 to 15, a chunk's in 12 to 16 of its own
    first = int.from_bytes(content[11:15], "big")
    second = first + int.from_bytes(content[first + 12 : first + 16], "little")
    content[second : second + 32] = bytes(32)
    path.write_bytes(content)
    assert not store.verify(path)
    batches = Batches([store.open_case(path)], plain(), STATISTICS, 5)
    with pytest.raises(InputError, match="cannot read training case 'noise'"):
        list(ahead(batches, 0, 20, 2))


def test_forced_patches_are_drawn_around_lesions_where_asked(cases):
    batches = Batches(cases, plain(lesions=1.0, foreground=1.0), STATISTICS, 5)
    for iteration in range(20):
        _, labels = batches(iteration)
        assert (labels == 14).flatten(1).any(1).all()
    assert set(drawn(batches)) == {2, 3}
    again = Batches(cases, plain(lesions=1.0, foreground=1.0), STATISTICS, 5)
    assert torch.equal(batches(3)[0], again(3)[0])


def test_each_sample_says_which_classes_it_vouches_for(cases):
    known = {f"case_{n}": torch.arange(4) == n for n in range(4)}
    batches = Batches(cases, plain(foreground=0.0), STATISTICS, 5, annotated=known)
    origins = drawn(batches, range(20))
    found = torch.cat([batches(iteration)[2] for iteration in range(20)])
    assert found.dtype == torch.bool
    assert set(origins) == {0, 1, 2, 3}
    assert [row.nonzero().item() for row in found] == origins
    # the rest of a batch is what it was
    other = Batches(cases, plain(foreground=0.0), STATISTICS, 5)(7)
    assert len(other) == 2
    assert all(torch.equal(a, b) for a, b in zip(other, batches(7), strict=False))


def test_where_cases_are_partly_annotated_forced_patches_go_by_the_class(cases):
    """A class that half of the cases have is drawn as often as one that all have."""
    known = {case.case: torch.tensor([False, *[True] * 14]) for case in cases}
    settings = plain(foreground=1.0, lesions=0.0)
    shares = []
    for annotated in ({}, known):
        batches = Batches(cases, settings, STATISTICS, 5, annotated=annotated)
        origins = drawn(batches, range(150))
        shares.append(sum(origin in {2, 3} for origin in origins) / len(origins))
    assert shares == pytest.approx([0.5, 0.75], abs=0.07)


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_batches import Batches, STATISTICS, ahead, make_cases, plain

assert not any(Path("/dev/shm").iterdir())
settings = plain(batch=40, patch=(16, 32, 32), oversize=(16, 32, 32))
batches = Batches(make_cases(Path(sys.argv[1])), settings, STATISTICS, 5)
sizes = []
for (image, labels), _ in ahead(batches, 0, 6, 3):
    sizes.append(image.nbytes + labels.nbytes)
    assert not any(Path("/dev/shm").iterdir())
assert "multiprocessing.shared_memory" not in sys.modules
print(min(sizes))
"""


def test_loading_takes_one_core_a_thread_and_leaves_the_others_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made = [cores for cores, _ in ahead(lambda _: torch.get_num_threads(), 0, 6, 2)]
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(torch.get_num_threads).result()
        assert (made, later, torch.get_num_threads()) == ([1] * 6, 3, 3)
    finally:
        torch.set_num_threads(before)


def test_batches_need_no_shared_memory(tmp_path):
    shm = ["unshare", "--mount", "sh", "-c"]
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    try:
        allowed = subprocess.run([*shm, small], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare to mount a small /dev/shm")
    if allowed.returncode:
        pytest.skip(f"may not mount a small /dev/shm: {allowed.stderr.decode().strip()}")
    run = subprocess.run(
        [*shm, f'{small} && exec "$0" "$@"', sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # one batch alone would not have fitted
    assert int(run.stdout) > 2**20
