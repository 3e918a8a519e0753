"""Cases on a Dask cluster (extra ``cluster``): a scheduler and workers that somebody started."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flarekd import __version__
from flarekd.errors import InputError, UsageError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Made = TypeVar("Made")

WAIT_S = 30
"""So long a scheduler may take to answer, and so long may pass until its first worker is there."""

LOOK_S, PAUSE_S = 2.0, 0.02
"""So long nothing may come before it is asked whether a worker is left, and until the next look."""

_TURN = threading.Lock()
_KEPT: dict[str, Any] = {}
"""What `kept` made, of one run."""

AHEAD = 2
"""Cases given out for every thread of a worker, as ``parallel.AHEAD``."""


def map_on_cluster(
    attempt: Callable[[Item], Outcome],
    items: Sequence[Item],
    scheduler: str,
    lost: Callable[[Item], Outcome],
) -> Iterator[Outcome]:
    """Yield the outcome of every item as it is finished.

    Dask gives the case of a dead worker to another one, and gives up a case that kills several.

    Args:
        attempt: Picklable; what it raises is a bug and is raised here.
        items: Their files must lie where every worker sees them under the same path; relative ones
            are meant from this process's folder.
        scheduler: ``tcp://host:port``.
        lost: The outcome of a case that was given up.

    Raises:
        UsageError: If Dask is not installed.
        InputError: If nothing answers there, no worker is there or left, or one has another version
            or does not see this process's folder.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise UsageError("--scheduler needs Dask", "pip install 'flarekd[cluster]'") from error
    try:
        client = Client(scheduler, timeout=WAIT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler!r}: {error}",
            "start one with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`",
        ) from error
    with client:
        folder = str(Path.cwd())
        threads = _threads(client, scheduler, folder)
        rest = iter(items)
        given: dict[str, Item] = {}

        def give(count: int) -> list[Any]:
            futures = []
            for item in islice(rest, count):
                future = client.submit(_attempt_in, folder, attempt, item, pure=False)
                given[future.key] = item
                futures.append(future)
            return futures

        running = as_completed(give(AHEAD * threads))
        for future in _as_they_come(running, client, scheduler):
            item = given.pop(future.key)
            try:
                outcome = _result(future, client, scheduler)
            except KilledWorker:
                outcome = lost(item)
            future.release()
            for following in give(1):
                running.add(following)
            yield outcome


def _result(future: Any, client: Any, scheduler: str) -> Any:
    """What a worker found, which may be gone with it: then the case is done once more.

    Raises:
        InputError: If no worker is left to do it.
    """
    while True:
        try:
            return future.result(timeout=WAIT_S)
        except asyncio.TimeoutError:  # the built-in one, from Python 3.11 on
            if not client.nthreads():
                raise _deserted(scheduler) from None


def _deserted(scheduler: str) -> InputError:
    return InputError(
        f"the Dask scheduler {scheduler!r} has lost its last worker",
        f"start `dask worker {scheduler}` and run it again: what is done stays",
    )


def _as_they_come(running: Any, client: Any, scheduler: str) -> Iterator[Any]:
    """Futures as they are finished.

    Raises:
        InputError: If no worker has been there for `WAIT_S`: Dask would wait for ever.
    """
    seen = time.monotonic()
    while running.count():
        batch = running.next_batch(block=False)
        if batch:
            yield from batch
            seen = time.monotonic()
        elif time.monotonic() - seen > LOOK_S and client.nthreads():
            seen = time.monotonic()
        elif time.monotonic() - seen > WAIT_S:
            raise _deserted(scheduler)
        else:
            time.sleep(PAUSE_S)


def _threads(client: Any, scheduler: str, folder: str) -> int:
    """Threads of all workers, once there is one; all must run our version and see our folder."""
    try:
        client.wait_for_workers(1, timeout=WAIT_S)
    except TimeoutError as error:
        raise InputError(
            f"the Dask scheduler {scheduler!r} has no worker", f"start `dask worker {scheduler}`"
        ) from error
    try:
        versions = client.run(version)
    except ImportError as error:
        raise InputError(
            f"workers of {scheduler!r} have no flarekd: {error}", "install the same version there"
        ) from error
    others = sorted(f"{where}: {one}" for where, one in versions.items() if one != __version__)
    if others:
        raise InputError(
            f"workers run another flarekd than this one ({__version__}): {', '.join(others)}",
            "install the same version on all of them",
        )
    blind = sorted(where for where, sees in client.run(os.path.isdir, folder).items() if not sees)
    if blind:
        raise InputError(
            f"workers do not see the folder {folder!r}: {', '.join(blind)}",
            "call it from a folder that all machines share",
        )
    threads: int = sum(client.nthreads().values())
    return threads


def _attempt_in(folder: str, attempt: Callable[[Item], Outcome], item: Item) -> Outcome:
    """One case, by a worker: relative paths are meant from where the verb was called."""
    os.chdir(folder)
    return attempt(item)


@contextmanager
def kept(run: str, make: Callable[[], Made]) -> Iterator[Made]:
    """What a worker makes once for a run, such as a network; one thread of it has it at a time.

    It stays in memory until another run asks: nobody tells a worker that a run is over.

    Args:
        run: As `new_run` names it.
        make: Called at the run's first case.
    """
    with _TURN:
        if run not in _KEPT:
            _KEPT.clear()
            _KEPT[run] = make()
        yield _KEPT[run]


def new_run() -> str:
    """A name that no other run has."""
    return uuid.uuid4().hex


def version() -> str:
    """The version of flarekd; asked of every worker."""
    return __version__
