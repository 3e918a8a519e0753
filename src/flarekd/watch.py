"""Run a command as a child and watch what it and its descendants use."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from flarekd.efficiency import Run, Sample
from flarekd.errors import UsageError
from flarekd.interrupts import passed_on

MB = 2**20

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that are the command's: it is in a session of its own and would not get them."""

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def watch(
    command: Sequence[str], interval_s: float, gpu_mb: Callable[[], float] | None = None
) -> Run:
    """Run a command to its end and sample what it uses on a grid of absolute times.

    A sample that comes late does not move the later ones; their real times are kept. The command
    has no standard input, and is the leader of a session and process group of its own. What it
    leaves running when it ends is neither waited for nor ended.

    Args:
        command: Program and arguments; no shell.
        interval_s: Step of the grid.
        gpu_mb: Memory in use on the device.

    Returns:
        The run, also where the command failed or was ended by a signal.

    Raises:
        UsageError: If the command cannot be started.
    """
    own_peak_mb = _own_peak_mb()
    machine_before_mb = _machine_mb()
    gpu_before_mb = gpu_mb() if gpu_mb else None
    strangers = set(psutil.pids())
    samples: list[Sample] = []
    with _signals_kept() as kept:
        child = _Child(command)
        kept.forward_to(child.send)
        try:
            tree = _Tree(child.pid, strangers)
            tick = 0
            while not child.ended.wait(child.began + tick * interval_s - time.perf_counter()):
                time_s = time.perf_counter() - child.began
                sample = tree.sample(time_s, gpu_mb)
                if sample.processes or not samples:
                    samples.append(sample)
                tick = int((time.perf_counter() - child.began) / interval_s) + 1
        except BaseException:
            child.send(signal.SIGKILL)
            raise
    if not samples:  # it ended before anybody looked
        samples.append(Sample(0.0, 0.0, machine_before_mb, 0.0, 0, gpu_before_mb))
    peak_mb = child.usage.ru_maxrss * _MAXRSS_UNIT / MB
    return Run(
        tuple(samples),
        child.seconds,
        child.status,
        child.usage.ru_utime + child.usage.ru_stime,
        # Linux counts the memory that a process had before it became the command: ours
        peak_mb if peak_mb > own_peak_mb else None,
        machine_before_mb,
        gpu_before_mb,
    )


class _Child:
    """The command, and a thread that waits for its end: the time is exact, not of the grid."""

    usage: resource.struct_rusage
    seconds: float
    status: int

    def __init__(self, command: Sequence[str]) -> None:
        self.ended = threading.Event()
        self.began = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise UsageError(
                f"cannot run {command[0]!r}: {error.strerror}",
                "check its name, or give its whole path",
            ) from None
        self.pid = self._process.pid
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        _, wait_status, self.usage = os.wait4(self.pid, 0)
        self.seconds = time.perf_counter() - self.began
        code = os.waitstatus_to_exitcode(wait_status)
        self._process.returncode = code
        self.status = code if code >= 0 else 128 - code
        self.ended.set()

    def send(self, number: int) -> None:
        """Send a signal to the command's process group, if the command has not ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class _Tree:
    """A command and its descendants; one once seen is followed when its parent is gone.

    Args:
        pid: The command's, which leads a session.
        strangers: Processes that were there before; only new ones are looked at.
    """

    def __init__(self, pid: int, strangers: set[int]) -> None:
        self._strangers = strangers
        self._ever = {pid}
        self._alive: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self._last_s: float | None = None

    def sample(self, time_s: float, gpu_mb: Callable[[], float] | None) -> Sample:
        """Look at all of them now."""
        self._find_new()
        ram, cpu_s, processes = 0, 0.0, 0
        for pid, process in list(self._alive.items()):
            try:
                times, resident = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                del self._alive[pid]
                continue
            ram += resident
            processes += resident > 0  # one that has ended and is not waited for has none
            used_s = times.user + times.system
            cpu_s += used_s - self._cpu_s.get(pid, 0.0)
            self._cpu_s[pid] = used_s
        percent = 0.0 if self._last_s is None else 100 * cpu_s / (time_s - self._last_s)
        self._last_s = time_s
        gpu = gpu_mb() if gpu_mb else None
        return Sample(time_s, ram / MB, _machine_mb(), percent, processes, gpu)

    def _find_new(self) -> None:
        running = psutil.pids()
        self._strangers.intersection_update(running)  # numbers are given anew
        for pid in running:
            if pid in self._strangers or pid in self._alive:
                continue
            try:
                # a parent may be gone and a session may be a new one, seldom both at once
                process = psutil.Process(pid)
                is_ours = os.getsid(pid) in self._ever or process.ppid() in self._ever
            except (psutil.Error, OSError):
                continue  # it has just ended
            if is_ours:
                self._alive[pid] = process
                self._ever.add(pid)
            else:
                self._strangers.add(pid)


def _machine_mb() -> float:
    memory = psutil.virtual_memory()
    return float(memory.total - memory.available) / MB


def _own_peak_mb() -> float:
    """The largest resident memory this process has had.

    Not ru_maxrss where that can be helped: it holds the memory of whoever started us too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024 / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT / MB


class _Kept:
    """Signals that came, and where they go."""

    def __init__(self) -> None:
        self._send: Callable[[int], None] | None = None
        self._waiting: list[int] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        del frame
        if self._send is None:
            self._waiting.append(number)
        else:
            self._send(number)

    def forward_to(self, send: Callable[[int], None]) -> None:
        """Send on what comes from now on, and what came before."""
        self._send = send
        for number in self._waiting:
            send(number)


@contextmanager
def _signals_kept() -> Iterator[_Kept]:
    """Take the signals that are the command's; those that are ignored (nohup) stay so."""
    kept = _Kept()
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, kept.handle)
    try:
        with passed_on():
            yield kept
    finally:
        for number in taken:
            signal.signal(number, before[number])
