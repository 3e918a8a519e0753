"""How many processes there is memory for."""

import numpy as np
import pytest

from flarekd import workers
from flarekd.imaging.files import write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.workers import BASE, plan_workers


@pytest.fixture
def files(tmp_path):
    """Label maps of 1,000 and 64,000 voxels, a torn file and one that is not there."""
    for name, size in (("small", 10), ("large", 40)):
        array = np.zeros((size, size, size), np.uint8)
        geometry = Geometry((size, size, size), (1.0, 1.0, 1.0))
        write_labels(tmp_path / f"{name}.nii.gz", LabelMap(array, geometry))
    (tmp_path / "torn.nii.gz").write_bytes(b"\x1f\x8b" + 1000 * b"\x00")
    names = ("small", "large", "torn", "gone")
    return [*(tmp_path / f"{name}.nii.gz" for name in names), None]


@pytest.fixture(autouse=True)
def four_processors(monkeypatch):
    monkeypatch.setattr(workers, "cpu_count", lambda: 4)


NEED = BASE + 10_000 * 64_000


@pytest.mark.parametrize(
    ("free", "jobs"), [(9 * NEED, 4), (4 * NEED, 4), (4 * NEED - 1, 3), (NEED, 1), (NEED // 2, 1)]
)
def test_there_are_as_many_as_the_largest_case_leaves_room_for(monkeypatch, files, free, jobs):
    monkeypatch.setattr(workers, "_free", lambda: free)
    told = []
    assert plan_workers(files, 10_000, told.append) == jobs
    (said,) = told
    assert said.startswith(f"{jobs} worker{'s' if jobs > 1 else ''}, 745 MB each at most, ")
    assert said.endswith("too little for the largest case") == (free < NEED)


def test_there_are_no_more_than_cases(monkeypatch, files):
    monkeypatch.setattr(workers, "_free", lambda: 9 * NEED)
    told = []
    assert plan_workers(files[1:2], 10_000, told.append) == 1
    assert told[0].startswith("1 worker, 745 MB")
    # a case without a file of its size is one all the same
    assert plan_workers([files[1], None], 10_000, told.append) == 2


def test_of_no_case_nothing_is_said():
    told = []
    assert plan_workers([], 10, told.append) == 1
    assert told == []


@pytest.mark.parametrize(
    ("limit", "taken", "expected"),
    [
        ("max", "5", 1000),
        ("700", "500", 200),
        ("9000", "0", 1000),
        ("5", "9", 0),
        (None, "1", 1000),
    ],
)
def test_a_container_is_no_larger_than_its_limit(monkeypatch, tmp_path, limit, taken, expected):
    class Memory:
        available = 1000

    monkeypatch.setattr(workers.psutil, "virtual_memory", Memory)
    monkeypatch.setattr(workers, "_CGROUP", tmp_path)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n", encoding="ascii")
    (tmp_path / "memory.current").write_text(f"{taken}\n", encoding="ascii")
    assert workers._free() == expected
