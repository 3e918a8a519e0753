"""Map a function over cases.

In this process or in local processes, one bad case never stops the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
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
