import gc
import os
import signal
import threading
import weakref
from pathlib import Path

import pytest

from flarekd.errors import LESS_MEMORY, InputError, NoRoomError, writing
from flarekd.parallel import Behind, map_cases, read_ahead


def work(item):
    if item == 2:
        raise InputError("two is broken", "mend it")
    if item == 3:
        raise KeyError("a bug")
    return item * 10


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_case_is_named_and_the_others_go_on(jobs):
    outcomes = {o.item: (o.result, o.error) for o in map_cases(work, [1, 2, 4], jobs)}
    assert outcomes == {1: (10, None), 2: (None, "two is broken · mend it"), 4: (40, None)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_is_not_taken_for_a_bad_case(jobs):
    with pytest.raises(KeyError):
        list(map_cases(work, [1, 3], jobs))


def take(voxels):
    """As many voxels as nobody has memory for, from numpy and from torch."""
    import numpy as np  # here: other tests' workers start without them
    import torch

    return np.empty(voxels).size if voxels % 2 else torch.empty(voxels).numel()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_case_that_memory_is_too_little_for_is_named_with_what_helps(jobs):
    outcomes = {o.item: (o.result, o.error) for o in map_cases(take, [3, 10**15 + 1, 10**15], jobs)}
    assert outcomes.pop(3) == (3, None)
    for result, error in outcomes.values():
        assert result is None
        assert "allocate" in error
        assert error.endswith(LESS_MEMORY)
    assert len(outcomes) == 2


def write(path):
    """Write a file, to a full disk where the path says so."""
    with writing(path), path.open("wb") as file:
        file.write(b"x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_ends_the_run_and_is_not_laid_to_a_case(jobs, tmp_path):
    outcomes = map_cases(write, [tmp_path / "a", Path("/dev/full")], jobs)
    with pytest.raises(NoRoomError, match=r"/dev/full: cannot be written: No space .* make room"):
        list(outcomes)


def square_or_die(item):
    """Die once where the item is a path that is not there yet, always where it is "poison"."""
    if item == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(item, Path) and not item.exists():
        item.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item if isinstance(item, Path) else item**2


def test_a_killed_worker_costs_one_retry_and_a_case_that_always_kills_is_named(tmp_path):
    items = [1, tmp_path / "once", 2, 3, "poison", 4]
    outcomes = list(map_cases(square_or_die, items, 2))
    found = {o.item: (o.result, o.error) for o in outcomes}
    assert len(outcomes) == len(items)
    lost = f"its process was killed, and again when retried: out of memory? · {LESS_MEMORY}"
    assert found == {
        1: (1, None),
        2: (4, None),
        3: (9, None),
        4: (16, None),
        items[1]: (items[1], None),
        "poison": (None, lost),
    }


def test_results_that_nobody_has_taken_yet_are_few(tmp_path):
    outcomes = map_cases(note, [tmp_path / str(number) for number in range(40)], 2)
    next(outcomes)
    threading.Event().wait(0.5)
    assert (
        len(list(tmp_path.iterdir())) <= 6
    )  # the one taken, and two given to each worker and more
    assert len(list(outcomes)) == 39


def note(path):
    path.touch()


@pytest.mark.parametrize("is_ahead", [True, False])
def test_reading_ahead_keeps_the_order_and_names_what_fails(is_ahead):
    outcomes = list(read_ahead(work, [1, 2, 4], is_ahead=is_ahead))
    assert [(o.item, o.result, o.error) for o in outcomes] == [
        (1, 10, None),
        (2, None, "two is broken · mend it"),
        (4, 40, None),
    ]
    assert list(read_ahead(work, [], is_ahead=is_ahead)) == []


def test_the_next_is_read_while_the_caller_works_and_the_one_after_is_not():
    read = [threading.Event() for _ in range(4)]

    def note(item):
        read[item].set()
        return item

    outcomes = read_ahead(note, range(4))
    assert read[0].wait(5)  # before anybody asks
    next(outcomes)
    assert read[1].wait(5)
    assert not read[2].wait(0.05)
    next(outcomes)
    assert read[2].wait(5)
    outcomes.close()


def test_a_case_that_is_done_with_is_not_held_while_the_next_is_waited_for():
    class Case:
        pass

    held = []

    def make(_item):
        case = Case()
        held.append(weakref.ref(case))
        return case

    for count, outcome in enumerate(read_ahead(make, range(3))):
        del outcome
        gc.collect()
        assert sum(ref() is not None for ref in held[:count]) == 0


@pytest.mark.parametrize("is_behind", [True, False])
def test_what_is_finished_behind_is_done_in_order_when_the_block_ends(is_behind):
    done = []
    with Behind(is_behind=is_behind) as writer:
        for item in range(5):
            writer.do(lambda item=item: done.append(item))
    assert done == [0, 1, 2, 3, 4]


def test_at_most_one_is_being_finished():
    running, most, lock = 0, [0], threading.Lock()

    def write():
        nonlocal running
        with lock:
            running += 1
            most[0] = max(most[0], running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    with Behind() as writer:
        for _ in range(4):
            writer.do(write)
    assert most == [1]


@pytest.mark.parametrize("is_behind", [True, False])
def test_a_bug_in_what_is_finished_behind_is_raised(is_behind):
    with pytest.raises(KeyError), Behind(is_behind=is_behind) as writer:
        writer.do(lambda: work(3))
