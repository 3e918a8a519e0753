"""What all tests share: no deadlines, since a busy machine says nothing about the code."""

import os

import pytest
import torch
from hypothesis import settings

# tensors here are tiny: threads would only wait for one another
torch.set_num_threads(1)

settings.register_profile("flarekd", deadline=None, max_examples=50)
settings.load_profile("flarekd")


@pytest.fixture
def one_processor():
    """Cases stay in this process: starting another takes longer than the work."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)
