"""A command as a user runs it: wall time, CPU time and memory of all its processes (Linux)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 0.05
LOOK_EVERY = 10
"""Samples between two looks for new processes: to go through all of a machine's twenty times a
second takes what is measured more time than the memory of the few that belong to it."""

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Run:
    """What a command took.

    Attributes:
        status: Exit status.
        wall_s: From the start of its first process to the end of it.
        cpu_s: User and system time of all processes that were waited for.
        peak_mib: Most memory of all its processes at one time, sampled every 0.05 s (a new process
            is found within half a second): what each has for itself, and of what processes share
            (files, libraries, shared memory) the most that any of them has mapped. No less than the
            kernel's own peak of the first process.
    """

    status: int
    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(command: Sequence[str], log: Path) -> Run:
    """Run a command to its end; what it says goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        began = time.monotonic()
        # in a session of its own, by which its processes are told from others
        process = subprocess.Popen(
            list(command), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.stop()
    cpu_s = usage.ru_utime + usage.ru_stime
    return Run(process.returncode, wall_s, cpu_s, sampler.peak_mib)


class _Sampler(threading.Thread):
    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._session = session
        self._stopped = threading.Event()

    def run(self) -> None:
        samples, known = 0, [self._session]
        while not self._stopped.wait(INTERVAL_S):
            if samples % LOOK_EVERY == 0:
                known = processes(self._session)
            samples += 1
            now = memory_mib(known)
            self.peak_mib = max(self.peak_mib, now, first_peak_mib(self._session))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def first_peak_mib(process: int) -> float:
    """The kernel's own peak of a process so far; 0 where it has ended.

    Not what the kernel tells of a child that ended: that counts what its parent held, too.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return max(peaks, default=0) / 1024


def processes(session: int) -> list[int]:
    """The processes of a session now."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # the name in parentheses may hold spaces; state, parent, group and session follow it
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[3]) == session:
            found.append(int(folder.name))
    return found


def memory_mib(known: Sequence[int]) -> float:
    """Memory of processes now, as `Run.peak_mib` counts it."""
    own, shared = 0, [0]
    for process in known:
        try:
            counts = Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()
            _, resident, common = counts[:3]
        except (OSError, ValueError):
            continue  # it has just ended
        own += int(resident) - int(common)
        shared.append(int(common))
    return (own + max(shared)) * PAGE_MIB
