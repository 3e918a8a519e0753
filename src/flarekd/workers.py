"""How many processes a verb may have: no more than there is memory for, said beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path

import psutil

from flarekd.errors import FlarekdError, counted
from flarekd.imaging.files import read_geometry
from flarekd.parallel import cpu_count

BASE = 100 << 20
"""Bytes of a process before it has read anything."""

MOST_HEADERS = 20
"""So many of the largest files are asked for their size, among which the largest case will be."""

_CGROUP = Path("/sys/fs/cgroup")


def plan_workers(
    files: Iterable[Path | None], bytes_a_voxel: int, say: Callable[[str], None]
) -> int:
    """As many processes as there are processors: fewer for fewer cases, or where memory is short.

    Args:
        files: One of each case, of its size, None where it has none; what a case takes is told by
            those that can be read.
        bytes_a_voxel: What the work takes of a case.
        say: Is told what each will take; not where there is no case.
    """
    cases = list(files)
    sized = [path for path in cases if path is not None]
    if not sized:
        return 1
    return share_memory(len(cases), BASE + bytes_a_voxel * _most_voxels(sized), say)


def share_memory(cases: int, each: int, say: Callable[[str], None]) -> int:
    """The same where it is known what a process takes.

    Args:
        cases: How many there are, at least one.
        each: Bytes of a process.
        say: Is told.
    """
    free = _free()
    jobs = max(1, min(cpu_count(), cases, free // each))
    told = f"{counted(jobs, 'worker')}, {each / 1e6:.0f} MB each at most"
    told += f", {free / 1e9:.1f} GB of memory free"
    say(told if each <= free else f"{told}: too little for the largest case")
    return jobs


def _most_voxels(files: list[Path]) -> int:
    sized = []
    for path in files:
        try:
            sized.append((path.stat().st_size, path))
        except OSError:
            continue
    most = 0
    for _, path in sorted(sized, reverse=True)[:MOST_HEADERS]:
        try:
            most = max(most, prod(read_geometry(path).shape_zyx))
        except (FlarekdError, OSError, ValueError):
            continue  # told when its case is done
    return most


def _free() -> int:
    """Bytes that are free: of the machine, or of the container where it has a limit."""
    free: int = psutil.virtual_memory().available
    try:
        limit, taken = (
            int((_CGROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # none, or "max"
        return free
    return min(free, max(0, limit - taken))
