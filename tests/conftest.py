"""What all tests share: no deadlines, since a busy machine says nothing about the code."""

import os
import shutil
import signal

import pytest
import torch
from hypothesis import settings

# tensors here are tiny: threads would only wait for one another
torch.set_num_threads(1)

settings.register_profile("flarekd", deadline=None, max_examples=50)
settings.load_profile("flarekd")


@pytest.fixture
def one_processor():
    """Cases stay in this process: starting another takes longer than the work.

    The first processor; processes that tests start have the last (`tests.end_to_end.warm`).
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Ctrl-C reaches what tests start, also where a shell began them in the background.

    A shell lets its background jobs ignore SIGINT, and every child inherits that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, where one is installed; it can reach no network."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


@pytest.fixture(scope="module")
def scheduler():
    """The address of a Dask cluster of two local workers."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address
