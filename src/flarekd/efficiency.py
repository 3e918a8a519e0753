"""What a run cost, the FLARE way and exactly: peaks, areas, and what lies above the tolerances.

Arithmetic only (FLARE 2023 §3.1; docs/method.md §8.3). MB are 2^20 bytes, as FLARE counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SECONDS_ALLOWED = 15.0
"""FLARE23 takes nothing off for this time."""

GPU_MB_ALLOWED = 4096.0
"""FLARE23 takes nothing off for this GPU memory."""


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        time_s: Since just before the command was started.
        ram_mb: Resident memory of the command and all its descendants; pages that several
            processes share count once a process.
        machine_mb: Memory in use on the whole machine.
        cpu_percent: Of the processes since the sample before; 100 is one core.
        processes: How many there were.
        gpu_mb: Memory in use on the whole device, total - free; None without a GPU.
    """

    time_s: float
    ram_mb: float
    machine_mb: float
    cpu_percent: float
    processes: int
    gpu_mb: float | None = None


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        samples: At least one, in order of time.
        seconds: Wall time from just before the start to the end of the command.
        status: As a shell gives it: the command's own, or 128 + the signal that ended it.
        cpu_seconds: User and system time of the command and the descendants it waited for.
        process_peak_mb: Largest resident memory of any one of these processes, as the kernel
            kept it; None where it is no larger than what this process had.
        machine_before_mb: Memory in use on the machine before the start.
        gpu_before_mb: Memory in use on the device before the start.
    """

    samples: tuple[Sample, ...]
    seconds: float
    status: int
    cpu_seconds: float
    process_peak_mb: float | None
    machine_before_mb: float
    gpu_before_mb: float | None = None


def area(times_s: Sequence[float], values: Sequence[float], end_s: float) -> float:
    """The area under samples: straight between them, and the last one held to the end.

    Before the first sample nothing counts.

    Args:
        times_s: Rising.
        values: One a time.
        end_s: Not before the last time.

    Raises:
        ValueError: If there are not as many values as times.

    >>> area([0, 1, 3], [2, 4, 0], end_s=5)
    7.0
    """
    points = list(zip(times_s, values, strict=True))
    between = sum((b - a) * (u + v) / 2 for (a, u), (b, v) in pairwise(points))
    return float(between + sum((end_s - time) * value for time, value in points[-1:]))


def flare_area(values: Sequence[float], interval_s: float) -> float:
    """Σ value · interval, as FLARE's script: whatever the steps really took.

    >>> flare_area([1, 2, 3], interval_s=0.5)
    3.0
    """
    return sum(values) * interval_s


def excess(values: Sequence[float], allowed: float) -> list[float]:
    """How far each value lies above what is allowed.

    >>> excess([1, 5], allowed=4)
    [0, 1]
    """
    return [max(0, value - allowed) for value in values]


def summary(run: Run, interval_s: float) -> dict[str, Any]:
    """The numbers of one run, as bench.json has them.

    Args:
        run: What was measured.
        interval_s: The nominal step, for FLARE's area.
    """
    times = [sample.time_s for sample in run.samples]
    ram = [sample.ram_mb for sample in run.samples]
    machine = [sample.machine_mb for sample in run.samples]
    cpu = [sample.cpu_percent for sample in run.samples]
    return {
        "status": run.status,
        "seconds": run.seconds,
        "seconds_over": max(0.0, run.seconds - SECONDS_ALLOWED),
        "samples": len(times),
        "longest_step_s": max((b - a for a, b in pairwise(times)), default=run.seconds),
        "ram": {
            "peak_mb": max(*ram, run.process_peak_mb or 0.0),
            "sampled_peak_mb": max(ram),
            "process_peak_mb": run.process_peak_mb,
            "area_mb_s": area(times, ram, run.seconds),
            "flare_area_mb_s": flare_area(ram, interval_s),
        },
        "machine": {"before_mb": run.machine_before_mb, "peak_mb": max(machine)},
        "cpu": {
            "seconds": run.cpu_seconds,
            "mean_percent": 100 * run.cpu_seconds / run.seconds,
            "peak_percent": max(cpu),
            "flare_area_percent_s": flare_area(cpu, interval_s),
        },
        "gpu": _gpu(run, times, interval_s),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, middle and greatest of repeated runs.

    >>> spread([3.0, 1.0, 2.0])
    {'min': 1.0, 'median': 2.0, 'max': 3.0}
    """
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _gpu(run: Run, times: Sequence[float], interval_s: float) -> dict[str, float | None] | None:
    used = [sample.gpu_mb for sample in run.samples if sample.gpu_mb is not None]
    if not used:
        return None
    over = excess(used, GPU_MB_ALLOWED)
    return {
        "before_mb": run.gpu_before_mb,
        "peak_mb": max(used),
        "peak_over_mb": max(over),
        "area_mb_s": area(times, used, run.seconds),
        "area_over_mb_s": area(times, over, run.seconds),
        "flare_area_mb_s": flare_area(used, interval_s),
        "flare_area_over_mb_s": flare_area(over, interval_s),
    }
