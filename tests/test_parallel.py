import pytest

from flarekd.errors import InputError
from flarekd.parallel import map_cases


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
