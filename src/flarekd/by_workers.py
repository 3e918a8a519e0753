"""Cases that the workers of a Dask cluster do, each with a network that it loads once.

What they say is told where the verb was called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from flarekd import console
from flarekd.parallel import map_cases

Item = TypeVar("Item")


@dataclass(frozen=True)
class Told:
    """What a worker says of a case.

    Attributes:
        failed: Why it failed, None where it did not.
        notes: What to look at.
        how: What ran the network and how, for the report.
    """

    failed: str | None
    notes: list[str]
    how: dict[str, Any]


def by_workers(
    work: Callable[[Item], Told],
    items: Collection[Item],
    name: Callable[[Item], str],
    *,
    title: str,
    scheduler: str,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Give cases to the workers of a cluster, and tell what they say.

    Args:
        work: Done by a worker; picklable.
        items: One a case.
        name: Of a case.
        title: What the progress is called.
        scheduler: As ``parallel.map_cases`` takes it.

    Returns:
        The cases that failed and why, and how all were done (`together`).
    """
    failed: dict[str, str] = {}
    how: list[dict[str, Any]] = []
    with console.progress(title) as advance:
        for done, outcome in enumerate(map_cases(work, items, scheduler=scheduler), 1):
            case, told = name(outcome.item), outcome.result
            for note in told.notes if told else ():
                console.warn(note)
            why = told.failed if told else outcome.error
            if why is not None:
                failed[case] = why
                console.error(f"{case}: {why}")
            if told and told.how not in how:
                how.append(told.how)
            advance(done, len(items), case)
    return failed, together(how)


def together(how: list[dict[str, Any]]) -> dict[str, Any]:
    """What all workers say; where they differ, in a device or a runtime, all of it.

    >>> together([{"device": "cuda:0", "step": 0.5}, {"device": "cpu", "step": 0.5}])
    {'device': 'cpu, cuda:0', 'step': 0.5}
    """
    told: dict[str, list[Any]] = {}
    for one in how:
        for key, value in one.items():
            if value not in told.setdefault(key, []):
                told[key].append(value)
    return {k: v[0] if len(v) == 1 else ", ".join(sorted(map(str, v))) for k, v in told.items()}
