"""Map a function over cases.

In this process, in local processes or on a Dask cluster (``cluster.py``); one bad case never stops
the rest, and neither does a process that is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from flarekd.errors import FAILURES, LESS_MEMORY, NoRoomError, is_out_of_memory, reason
from flarekd.interrupts import leave_quietly

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Cases given out for every worker: one is done, one waits, so that no worker does."""

LEAVE_S = 5.0
"""So long workers that are told to end may take to put away what they write."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one case: a result, or the error that a person can read."""

    item: Item
    result: Result | None
    error: str | None


def cpu_count() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_cases(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int = 1,
    scheduler: str | None = None,
) -> Iterator[Outcome[Item, Result]]:
    """Apply `function` to every item and yield outcomes as they finish, in order with one job.

    A ``FlarekdError``, ``OSError`` or ``ValueError`` of one item, or memory that was too little for
    it, becomes its outcome's ``error`` and the others go on; anything else is a bug and is raised.
    A worker that is killed costs its case one retry. Results are held until they are taken, a few
    at a time, so memory does not grow with the number of cases.

    Args:
        function: Picklable where ``jobs`` > 1.
        items: One a case.
        jobs: Local processes; 1 stays in this process.
        scheduler: Address of a Dask scheduler, ``tcp://host:port``: its workers do the work, and
            `jobs` says nothing.

    Raises:
        UsageError: If Dask is not installed.
        InputError: If no scheduler answers, or its workers run another version of flarekd.
        NoRoomError: If a disk is full: the cases that follow would fail too.
    """
    todo = list(items)
    if scheduler is not None:
        from flarekd.cluster import map_on_cluster

        work: Callable[[Item], Outcome[Item, Result]] = partial(attempt, function)
        lost: Callable[[Item], Outcome[Item, Result]] = _lost
        yield from map_on_cluster(work, todo, scheduler, lost)
    elif jobs <= 1 or len(todo) <= 1:
        for item in todo:
            yield attempt(function, item)
    else:
        yield from _in_processes(function, deque(todo), min(jobs, len(todo)))


def _in_processes(
    function: Callable[[Item], Result], todo: deque[Item], workers: int
) -> Iterator[Outcome[Item, Result]]:
    while todo:
        suspects: list[Item] = []
        with _pool(workers) as pool:
            running: dict[Future[Outcome[Item, Result]], Item] = {}
            try:
                while todo or running:
                    while todo and len(running) < AHEAD * workers:
                        running[pool.submit(_in_worker, function, todo[0])] = todo[0]
                        todo.popleft()  # now, not before: a broken pool takes nothing on
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del running[future]
                        yield outcome
            except BrokenProcessPool:
                suspects = list(running.values())
            except BaseException:  # a bug, an interruption, or nobody wants the rest
                _end(pool)
                raise
        # one worker was killed, and with it the pool: which case it was shows when each runs alone
        for item in suspects:
            yield _alone(function, item)


def _alone(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    # twice: it may only have waited beside the one that killed the pool
    for _ in range(2):
        with _pool(1) as pool:
            try:
                return pool.submit(_in_worker, function, item).result()
            except BrokenProcessPool:
                continue
            except BaseException:
                _end(pool)
                raise
    return _lost(item)


def _lost(item: Item) -> Outcome[Item, Result]:
    what = "its process was killed, and again when retried: out of memory?"
    return Outcome(item, None, f"{what} · {LESS_MEMORY}")


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn, not fork: a forked child of a process that has run torch or ITK threads can deadlock
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start_worker)


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool now: cases that they have begun are not waited for."""
    workers = list(pool._processes.values())  # Python 3.14 has terminate_workers
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + LEAVE_S
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _in_worker(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """`attempt`, and the end of a worker that is told to end: the pool would give it the next."""
    try:
        return attempt(function, item)
    except SystemExit as leaving:
        os._exit(leaving.code if isinstance(leaving.code, int) else 1)


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, is_ahead: bool = True
) -> Iterator[Outcome[Item, Result]]:
    """Apply `function` to every item in order, in a thread, one item ahead of the caller.

    The first is begun at once. What fails becomes its item's outcome as in `map_cases`.

    Args:
        function: May hold a whole case: one result waits while the caller uses another, no more.
        items: One a case.
        is_ahead: False works in the caller's own thread when it asks: one case in memory at a time.
    """
    if not is_ahead:
        return (attempt(function, item) for item in items)
    reader = ThreadPoolExecutor(1, "read-ahead")
    rest = iter(items)
    waiting = deque(reader.submit(attempt, function, item) for item in islice(rest, 1))
    return _one_ahead(reader, function, rest, waiting)


def _one_ahead(
    reader: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    rest: Iterator[Item],
    waiting: deque[Future[Outcome[Item, Result]]],
) -> Iterator[Outcome[Item, Result]]:
    try:
        while waiting:
            now = waiting.popleft().result()
            waiting.extend(reader.submit(attempt, function, item) for item in islice(rest, 1))
            yield now
            del now  # or it would be in memory until the one after is read
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


class Behind:
    """Finish cases in a thread while the caller goes on: at most one is being finished.

    Args:
        is_behind: False does the work at once, in the caller's thread.
    """

    def __init__(self, *, is_behind: bool = True) -> None:
        self._thread = ThreadPoolExecutor(1, "write-behind") if is_behind else None
        self._last: Future[None] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is under way; its error is raised here."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if self._last is not None:
            self._last.result()

    def do(self, work: Callable[[], None]) -> None:
        """Take on a piece of work, after the one before is finished; its error is raised then."""
        if self._thread is None:
            work()
            return
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(work)


def _start_worker() -> None:
    """End this worker when it is told to or its parent is gone: a verb leaves none behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # last: a pool tells of whatever ends the start of a worker, and until now a signal just ends it
    leave_quietly()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """Apply `function` to one item; what a person can mend becomes the outcome's error.

    Raises:
        NoRoomError: If a disk is full.
    """
    try:
        return Outcome(item, function(item), None)
    except NoRoomError:
        raise
    except FAILURES as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        return Outcome(item, None, reason(error))
