"""Map a function over cases.

In this process or in local processes, one bad case never stops the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from flarekd.errors import FlarekdError

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int = 1
) -> Iterator[Outcome[Item, Result]]:
    """Apply `function` to every item and yield outcomes as they finish, in order with one job.

    A ``FlarekdError``, ``OSError``, ``ValueError`` or ``MemoryError`` of one item becomes its
    outcome's ``error`` and the others go on; anything else is a bug and is raised.

    Args:
        function: Picklable where ``jobs`` > 1.
        items: One a case.
        jobs: Local processes; 1 stays in this process.
    """
    todo = list(items)
    if jobs <= 1 or len(todo) <= 1:
        for item in todo:
            yield _attempt(function, item)
        return
    # spawn, not fork: a forked child of a process that has run torch or ITK threads can deadlock
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(todo))
    with ProcessPoolExecutor(workers, context, initializer=_die_with_parent) as pool:
        futures = [pool.submit(_attempt, function, item) for item in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
        return (_attempt(function, item) for item in items)
    reader = ThreadPoolExecutor(1, "read-ahead")
    rest = iter(items)
    waiting = deque(reader.submit(_attempt, function, item) for item in islice(rest, 1))
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
            waiting.extend(reader.submit(_attempt, function, item) for item in islice(rest, 1))
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


def _die_with_parent() -> None:
    """End this worker when its parent is gone: a killed verb must leave no process behind."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    try:
        return Outcome(item, function(item), None)
    except (FlarekdError, OSError, ValueError, MemoryError) as error:
        return Outcome(item, None, str(error) or type(error).__name__)
