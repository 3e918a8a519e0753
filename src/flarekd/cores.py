"""How this process shares the machine's cores."""

from __future__ import annotations

import os

WAITING = "OMP_WAIT_POLICY"


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep, not spin, while they wait for one another.

    Threads of torch meet a thousand times in a training step. One that spins keeps its core from
    the one it is waiting for as soon as anything else runs on the machine, and a step then takes
    several times as long; on an idle machine waking the sleepers costs about a seventh
    (docs/benchmarks/training.md). A policy that somebody has set stays.

    To be called before torch is imported, which reads it once.
    """
    os.environ.setdefault(WAITING, "PASSIVE")  # noqa: TID251 -- OpenMP hears of it no other way
