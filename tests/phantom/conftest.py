from functools import lru_cache

import pytest

from flarekd.phantom.case import PhantomCase, make_case
from flarekd.phantom.plan import plan_cohort

PLANS = plan_cohort(48, "quick", 0)


@lru_cache(maxsize=64)
def _made(index: int) -> PhantomCase:
    return make_case(PLANS[index])


@pytest.fixture(scope="session")
def plans():
    return PLANS


@pytest.fixture(scope="session")
def made():
    """Makes case `index` of a cohort of 48, once a session."""
    return _made


@pytest.fixture(scope="session")
def cases():
    return [_made(index) for index in range(12)]
