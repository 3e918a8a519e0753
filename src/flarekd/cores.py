"""How this process shares the machine's cores."""

from __future__ import annotations

import os

WAITING = "OMP_WAIT_POLICY"
TURNS = "GOMP_SPINCOUNT"
"""How often a thread looks before it sleeps. GNU's OpenMP knows it; others know the policy only."""


def sleep_while_waiting() -> None:
    """Let OpenMP's threads fall asleep soon, not spin, while they wait for one another.

    Threads of torch meet a thousand times in a training step. One that spins keeps its core from
    the one it is waiting for as soon as anything else runs on the machine, and a step then takes
    several times as long; on an idle machine waking sleepers costs about a tenth. A thousand turns,
    some microseconds, spare most of the waking and cost the busy machine a twelfth
    (docs/benchmarks/training.md). What somebody has set stays.

    To be called before torch is imported, which reads it once.
    """
    environment = os.environ  # noqa: TID251 -- OpenMP hears of it no other way
    if WAITING not in environment:
        environment[WAITING] = "PASSIVE"
        environment.setdefault(TURNS, "1000")
