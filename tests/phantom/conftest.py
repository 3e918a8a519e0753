from functools import lru_cache

import pytest

from flarekd.phantom.case import PhantomCase, build_scene, make_case
from flarekd.phantom.patient import CasePlan
from flarekd.phantom.plan import plan_cohort
from flarekd.phantom.scene import Scene

PLANS = plan_cohort(48, "quick", 0)


@lru_cache(maxsize=64)
def _made(plan: CasePlan) -> PhantomCase:
    return make_case(plan)


@lru_cache(maxsize=8)
def _scene(plan: CasePlan) -> Scene:
    return build_scene(plan)


@pytest.fixture(scope="session")
def plans():
    return PLANS


@pytest.fixture(scope="session")
def made():
    """Makes the case of a plan, each once a session."""
    return _made


@pytest.fixture(scope="session")
def built():
    """Builds the scene of a plan, to be looked at only."""
    return _scene


@pytest.fixture(scope="session")
def cases():
    return [_made(plan) for plan in PLANS[:12]]
